"""A Flask application behind apig-wsgi."""

from apig_wsgi import make_lambda_handler
from flask import Flask, jsonify, make_response, redirect, request

app = Flask(__name__)


@app.route("/show/<path:rest>", methods=["GET", "POST"])
def show(rest):
    return jsonify(
        framework="flask",
        method=request.method,
        rest=rest,
        query=request.args.to_dict(flat=False),
        cookie=request.cookies.get("a"),
        body=request.get_data(as_text=True),
        header=request.headers.get("X-Own"),
    )


@app.route("/cookies")
def cookies():
    response = make_response("set")
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


@app.route("/bytes")
def octets():
    return make_response(bytes(range(256)), 200, {"Content-Type": "application/octet-stream"})


@app.route("/go")
def go():
    return redirect("/show/there", 303)


handler = make_lambda_handler(app, binary_support=True)
