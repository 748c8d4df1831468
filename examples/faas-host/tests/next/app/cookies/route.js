export function GET() {
  const headers = new Headers({ 'content-type': 'text/plain' });
  headers.append('set-cookie', 'one=1');
  headers.append('set-cookie', 'two=2');
  return new Response('set', { headers });
}
export const dynamic = 'force-dynamic';
