export function GET() {
  return new Response(null, { status: 303, headers: { location: '/show/there' } });
}
export const dynamic = 'force-dynamic';
