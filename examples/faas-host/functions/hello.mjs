// Answers with a greeting, and with what the function can see of its sandbox.

let invocations = 0;

export const handler = async (event, context) => {
  invocations += 1;
  console.log(`greeting, invocation ${invocations} of this sandbox`);
  return {
    greeting: `hello from Node.js, ${event.name ?? 'you'}`,
    invocations,
    pid: process.pid,
    remaining_ms: context.getRemainingTimeInMillis(),
  };
};
