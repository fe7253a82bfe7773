"use strict";

// What GraphiQL opens with: one tab an example. Each is valid against the committed schema.

window.HEDDLE_EXAMPLES = [
  {
    title: "Every asset and how it is",
    query: `query Assets {
  assets(first: 20) {
    nodes {
      assetId
      title
      lifecycle
      twin {
        connectivity
        lastReadingAt
        openAlertCount
        health {
          status
          index
          reasons {
            severity
            message
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
    title: "One asset's twin: what each channel reads, in the unit that you like",
    query: `query AssetTwin {
  assets(first: 1) {
    nodes {
      assetId
      twin {
        asOf
        position
        readings {
          channel
          value
          siUnit
          ageS
          goodRatio
          status
        }
        pressure: readings(channels: ["pressure"]) {
          value(unit: "bar")
        }
        setpoints {
          setpoint
          desired(unit: "l/min")
          reported(unit: "l/min")
        }
      }
    }
  }
}
`,
  },
  {
    title: "Readings as columns, at most maxPoints a channel",
    query: `query Readings {
  assets(first: 1) {
    nodes {
      assetId
      readings(
        channels: ["pressure", "flow"]
        units: [{ channel: "flow", unit: "l/min" }]
        from: "2020-03-09T10:00:00Z"
        to: "2020-03-09T11:00:00Z"
        maxPoints: 500
      ) {
        channel
        unit
        count
        timesMs
        values
      }
    }
  }
}
`,
  },
  {
    title: "Open alerts, newest first",
    query: `query OpenAlerts {
  alerts(first: 20, filter: { states: [RAISED, ACKNOWLEDGED] }) {
    nodes {
      alertId
      assetId
      severity
      message
      since
      value(unit: "l/min")
      limit(unit: "l/min")
    }
  }
}
`,
  },
  {
    title: "Ask for a set-point; without dryRun it is recorded",
    query: `mutation DesireFlow {
  desireSetpoint(
    input: {
      idempotencyKey: "a name of your own for this request"
      assetId: "pump-loop-1"
      setpoint: "flow"
      value: 32
      unit: "l/min"
      dryRun: true
    }
  ) {
    __typename
    ... on DesireSetpointSuccess {
      position
      version
    }
    ... on Error {
      code
      message
      hint
    }
  }
}
`,
  },
  {
    title: "Every event as it is recorded; give a cursor back to resume after it",
    query: `subscription Events {
  events(after: null) {
    cursor
    lag
    event {
      position
      stream
      type
      occurredAt
      fact
      frame {
        readingCount
        windowStart
        windowEnd
      }
    }
  }
}
`,
  },
  {
    title: "The plant: every line with its twin, and what concerns it",
    query: `query Lines {
  locations(first: 50, filter: { levels: [LINE, CELL] }) {
    nodes {
      locationId
      title
      path {
        title
      }
      twin {
        kind
        status
        index
        concerns {
          key
          title
          status
        }
      }
    }
    position
  }
}
`,
  },
  {
    title: "Maintenance: what is open, the most urgent first",
    query: `query Board {
  maintenanceBoard(first: 50) {
    open
    overdue
    assetsDown
    backlog {
      nodes {
        workOrderId
        priority
        state
        title
        ageS
        plannedStart
        asset {
          title
        }
      }
      pageInfo {
        hasNextPage
        endCursor
      }
    }
  }
}
`,
  },
  {
    title: "Key figures of a period: reliability in hours, yields, defects, energy in kWh",
    query: `query Figures {
  figures(period: { from: "2025-01-01T00:00:00Z", to: "2026-01-01T00:00:00Z" }) {
    reliability {
      total {
        failures
        mtbf(unit: "h")
        mttr(unit: "h")
        availabilityRatio
      }
    }
    yields {
      steps {
        operation
        units
        firstPassRatio
      }
    }
    defectPareto(first: 10) {
      bars {
        code
        count
        cumulativeShare
      }
    }
    energyByPartNumber(first: 10) {
      partNumber
      energyPerPart(unit: "kWh")
    }
  }
}
`,
  },
  {
    title: "Time travel: assets as they were known at a moment",
    query: `query Then {
  assets(first: 20, asOf: { recordedAt: "2026-01-01T00:00:00Z" }) {
    nodes {
      assetId
      title
      lifecycle
      alerts(first: 5) {
        nodes {
          state
          message
        }
      }
    }
    position
  }
}
`,
  },
  {
    title: "The audit trail: who did what, newest first",
    query: `query Trail {
  auditTrail(first: 50) {
    nodes {
      recordedAt
      actor
      key
      words
      change {
        reason
        fields {
          field
          previous
          now
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
];
