'use strict';
// One application in Express and one in Fastify, behind the adapter that ADAPTER names. With AWS's
// Web Adapter, an extension, it is an ordinary HTTP server.

const octets = Buffer.from(Array.from({ length: 256 }, (_, it) => it));

function shown(framework, request, rest) {
  const query = {};
  for (const [name, value] of Object.entries(request.query)) query[name] = [].concat(value);
  const cookie = /(?:^|; ?)a=([^;]*)/.exec(request.headers.cookie || '');
  const body = Buffer.isBuffer(request.body) ? request.body.toString() : request.body || '';
  return {
    framework, method: request.method, rest, query, cookie: cookie && cookie[1],
    body: typeof body === 'string' ? body : '', header: request.headers['x-own'],
  };
}

function express() {
  const express = require('express');
  const app = express();
  app.use(express.raw({ type: () => true }));
  app.all('/show/*rest', (request, response) => response.json(shown('express', request, request.params.rest.join('/'))));
  app.get('/cookies', (_, response) => response.cookie('one', '1').cookie('two', '2').type('text').send('set'));
  app.get('/bytes', (_, response) => response.type('application/octet-stream').send(octets));
  app.get('/go', (_, response) => response.redirect(303, '/show/there'));
  return app;
}

function fastify() {
  const app = require('fastify')();
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'string' }, (_, body, done) => done(null, body));
  app.all('/show/*', async (request) => shown('fastify', request, request.params['*']));
  app.get('/cookies', async (_, reply) => reply.header('set-cookie', ['one=1', 'two=2']).type('text/plain').send('set'));
  app.get('/bytes', async (_, reply) => reply.type('application/octet-stream').send(octets));
  app.get('/go', async (_, reply) => reply.redirect('/show/there', 303));
  return app;
}

const binary = ['application/octet-stream'];
const adapters = {
  'serverless-http': () => require('serverless-http')(express(), { binary }),
  'serverless-express': () => require('@codegenie/serverless-express')({ app: express(), binarySettings: { contentTypes: binary } }),
  'web-adapter': () => express().listen(process.env.PORT || 8080),
  'fastify': () => require('@fastify/aws-lambda')(fastify(), { enforceBase64: (reply) => binary.includes(reply.headers['content-type']) }),
};
exports.handler = adapters[process.env.ADAPTER]();
