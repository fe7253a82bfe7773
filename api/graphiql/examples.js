"use strict";

// What GraphiQL opens with: one tab an example. Each is valid against the committed schema.

window.HEDDLE_EXAMPLES = [
  {
    title: "Every asset and how it is",
    query: `query Assets {
  assets(first: 20) {
    edges {
      node {
        id
        key
        type
        twin {
          online
          health {
            index
            reasons
          }
        }
      }
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
`,
  },
  {
    title: "One asset's twin: its last good readings and open alerts",
    query: `query AssetTwin {
  asset(key: "pump-01") {
    key
    twin {
      position
      online
      readings {
        channel
        value
        unit
        at
        ageS
        quality
      }
      openAlerts {
        code
        severity
        raisedAt
      }
    }
  }
}
`,
  },
  {
    title: "Readings as columns, at most maxPoints a channel",
    query: `query Readings {
  asset(key: "pump-01") {
    readings(
      channels: ["pressure", "flow"]
      from: "2020-03-09T10:00:00Z"
      to: "2020-03-09T11:00:00Z"
      maxPoints: 500
    ) {
      channel
      unit
      times
      values
    }
  }
}
`,
  },
  {
    title: "Every event as it is recorded; give a cursor back to resume after it",
    query: `subscription Events {
  events(after: null, filter: { streams: ["asset:pump-01"] }) {
    cursor
    event {
      position
      stream
      type
      occurredAt
      recordedAt
    }
  }
}
`,
  },
];
