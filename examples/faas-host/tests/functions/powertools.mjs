// A function that uses Powertools for AWS Lambda (TypeScript): event handler, logger, metrics, tracer.
import { Router } from '@aws-lambda-powertools/event-handler/http';
import { Logger } from '@aws-lambda-powertools/logger';
import { Metrics, MetricUnit } from '@aws-lambda-powertools/metrics';
import { Tracer } from '@aws-lambda-powertools/tracer';

const logger = new Logger({ serviceName: 'shop' });
const metrics = new Metrics({ namespace: 'Shop', serviceName: 'shop' });
const tracer = new Tracer({ serviceName: 'shop' });
const app = new Router();

app.get('/orders/:number', async ({ req, params }) => {
  tracer.putAnnotation('number', params.number);
  logger.info('an order', { number: params.number });
  logger.debug('not shown');
  metrics.addMetric('Orders', MetricUnit.Count, 2);
  const query = Object.fromEntries(new URL(req.url).searchParams);
  return { number: params.number, query };
});

export const handler = async (event, context) => {
  logger.addContext(context);
  metrics.captureColdStartMetric();
  try {
    return await app.resolve(event, context);
  } finally {
    metrics.publishStoredMetrics();
  }
};
