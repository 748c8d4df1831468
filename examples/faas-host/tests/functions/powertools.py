"""A function that uses Powertools for AWS Lambda (Python): event handler, logger, metrics, tracer."""

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.event_handler import LambdaFunctionUrlResolver
from aws_lambda_powertools.metrics import MetricUnit

logger = Logger(service="shop")
metrics = Metrics(namespace="Shop", service="shop")
tracer = Tracer(service="shop")
app = LambdaFunctionUrlResolver()


@app.get("/orders/<number>")
@tracer.capture_method
def order(number: str):
    tracer.put_annotation("number", number)
    logger.info("an order", extra={"number": number})
    logger.debug("not shown")
    metrics.add_metric(name="Orders", unit=MetricUnit.Count, value=2)
    return {"number": number, "query": app.current_event.query_string_parameters}


@logger.inject_lambda_context
@tracer.capture_lambda_handler
@metrics.log_metrics(capture_cold_start_metric=True)
def handler(event, context):
    return app.resolve(event, context)
