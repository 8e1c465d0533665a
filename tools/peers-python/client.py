#!/usr/bin/env python3
"""Asks our Workload API what applications in Python ask, through the package `spiffe`, and prints a JSON line per answer.

client.py x509|jwt|validate|watch SOCKET [AUDIENCE [TOKEN]]
"""

import json
import sys
import threading

from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import WorkloadApiClient


def say(**line):
    print(json.dumps(line), flush=True)


def describe(context):
    svids = [
        {
            "spiffeId": str(svid.spiffe_id),
            "chain": len(svid.cert_chain),
            "leaf": svid.leaf.public_bytes(Encoding.DER).hex(),
        }
        for svid in context.x509_svids
    ]
    bundles = [
        {"trustDomain": str(bundle.trust_domain), "x509Authorities": len(bundle.x509_authorities)}
        for bundle in context.x509_bundle_set.bundles
    ]
    return {"svids": svids, "bundles": bundles}


def watch(client):
    while True:
        ended = threading.Event()

        def failed(error):
            say(watchError=str(error))
            ended.set()

        client.stream_x509_contexts(lambda context: say(**describe(context)), failed, retry_connect=False)
        ended.wait()
        threading.Event().wait(0.05)


def main(command, socket, audience="", token=""):
    with WorkloadApiClient(socket, default_timeout=30) as client:
        if command == "x509":
            say(**describe(client.fetch_x509_context()))
        elif command == "jwt":
            svid = client.fetch_jwt_svid({audience})
            say(spiffeId=str(svid.spiffe_id), token=svid.token)
        elif command == "validate":
            svid = client.validate_jwt_svid(token, audience)
            bundles = client.fetch_jwt_bundles()
            known = bundles.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain) is not None
            say(spiffeId=str(svid.spiffe_id), bundle=known)
        elif command == "watch":
            watch(client)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:  # pylint: disable=broad-except
        say(error=str(error))
        sys.exit(1)
