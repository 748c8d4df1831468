"""A Django application behind apig-wsgi."""

from apig_wsgi import make_lambda_handler
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path


def show(request, rest):
    return JsonResponse(
        dict(
            framework="django",
            method=request.method,
            rest=rest,
            query=dict(request.GET.lists()),
            cookie=request.COOKIES.get("a"),
            body=request.body.decode(),
            header=request.headers.get("X-Own"),
        )
    )


def cookies(request):
    response = HttpResponse("set", content_type="text/plain")
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


def octets(request):
    return HttpResponse(bytes(range(256)), content_type="application/octet-stream")


def go(request):
    return HttpResponse(status=303, headers={"Location": "/show/there"})


class Urls:
    urlpatterns = [
        path("show/<path:rest>", show),
        path("cookies", cookies),
        path("bytes", octets),
        path("go", go),
    ]


settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=Urls, SECRET_KEY="of a test")
handler = make_lambda_handler(get_wsgi_application(), binary_support=True)
