import { headers } from 'next/headers';

// Rendered for each request, since it reads a header.
export default async function Page({ searchParams }) {
  const own = (await headers()).get('x-own');
  const { q } = await searchParams;
  return <main>own: {own}, q: {[].concat(q).join('|')}</main>;
}
