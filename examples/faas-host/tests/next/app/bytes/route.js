export function GET() {
  const octets = Uint8Array.from({ length: 256 }, (_, it) => it);
  return new Response(octets, { headers: { 'content-type': 'application/octet-stream' } });
}
export const dynamic = 'force-dynamic';
