// Follows the subscription `events` with a real client, resuming after every lost connection, until
// so many events have come; prints their positions as JSON, and how often the connection was lost.
//
// node follow_events.mjs ws|sse URL COUNT CURSOR

import { createClient as createSseClient } from 'graphql-sse';
import { createClient as createWsClient } from 'graphql-ws';
import WebSocket from 'ws';

const [transport, url, count, start] = process.argv.slice(2);
const query = 'subscription($after: Cursor) { events(after: $after) { cursor event { position } } }';
const client =
  transport === 'ws'
    ? createWsClient({
        url: url.replace('http', 'ws'),
        webSocketImpl: WebSocket,
        lazy: true,
        retryAttempts: 0,
        onNonLazyError: () => {},
      })
    : createSseClient({ url, singleConnection: false, retryAttempts: 0 });

const positions = [];
let cursor = start;
let lost = 0;
while (positions.length < Number(count)) {
  try {
    for await (const result of client.iterate({ query, variables: { after: cursor } })) {
      if (result.errors) throw new Error(JSON.stringify(result.errors));
      positions.push(result.data.events.event.position);
      cursor = result.data.events.cursor;
      if (positions.length >= Number(count)) break;
    }
  } catch (error) {
    if (error instanceof Error && error.message.startsWith('[{')) throw error;
    lost += 1;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
console.log(JSON.stringify({ positions, lost }));
process.exit(0);
