"use strict";

// Boots GraphiQL against the server that served this page. No inline script and nothing from elsewhere, so
// that a Content-Security-Policy of script-src 'self' holds.

(function boot() {
  const httpUrl = new URL("/graphql", window.location.href);
  const socketUrl = new URL(httpUrl);
  socketUrl.protocol = httpUrl.protocol === "https:" ? "wss:" : "ws:";

  const fetcher = GraphiQL.createFetcher({
    url: httpUrl.href,
    subscriptionUrl: socketUrl.href,
  });
  // GraphiQL titles a tab by its operation's name.
  const defaultTabs = window.HEDDLE_EXAMPLES.map(({ title, query }) => ({ query: `# ${title}\n\n${query}` }));

  ReactDOM.createRoot(document.getElementById("graphiql")).render(
    React.createElement(GraphiQL, {
      fetcher,
      defaultTabs,
      defaultQuery: defaultTabs[0].query,
      shouldPersistHeaders: false,
    }),
  );
})();
