"""Webhooks: the log's events, carried to other systems' addresses as they happen.

::

    policy      which addresses may be called at all
    egress      one call, to an address that was resolved, checked and connected to once
    signature   Standard Webhooks: secrets and signatures
    cloudevents what a delivery looks like on the wire
    principals  as whom a webhook sees, and whether it still may
    commands    what clients ask of a webhook, as facts in the log
    store       progress and deliveries, beside the log
    secret_store  what deliveries are signed with
    trial       a test, sent now and once
    documents   what is told: a subscription, checked as if a socket asked for it
    planning    a cursor over the log becomes deliveries, in one transaction
    sending     one attempt, and what follows from its answer
    run         one webhook at work: deliveries go out in order within a lane, until settled
    metrics     what is counted
    dispatcher  which webhooks this process serves, and that only one process does
"""
