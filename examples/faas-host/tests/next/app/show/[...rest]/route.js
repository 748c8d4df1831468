async function show(request, { params }) {
  const { rest } = await params;
  const query = {};
  for (const name of request.nextUrl.searchParams.keys()) query[name] = request.nextUrl.searchParams.getAll(name);
  const cookie = request.cookies.get('a');
  return Response.json({
    framework: 'next', method: request.method, rest: rest.join('/'), query,
    cookie: cookie ? cookie.value : null, body: await request.text(), header: request.headers.get('x-own'),
  });
}
export { show as GET, show as POST };
