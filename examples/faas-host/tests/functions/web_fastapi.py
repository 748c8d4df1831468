"""A FastAPI application behind mangum."""

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from mangum import Mangum

app = FastAPI()


@app.api_route("/show/{rest:path}", methods=["GET", "POST"])
async def show(rest: str, request: Request):
    query = {}
    for name, value in request.query_params.multi_items():
        query.setdefault(name, []).append(value)
    return {
        "framework": "fastapi",
        "method": request.method,
        "rest": rest,
        "query": query,
        "cookie": request.cookies.get("a"),
        "body": (await request.body()).decode(),
        "header": request.headers.get("x-own"),
    }


@app.get("/cookies")
async def cookies():
    response = PlainTextResponse("set")
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


@app.get("/bytes")
async def octets():
    return Response(bytes(range(256)), media_type="application/octet-stream")


@app.get("/go")
async def go():
    return RedirectResponse("/show/there", 303)


handler = Mangum(app, lifespan="off")
