"""Prints where botocore's clients send their requests, and with which region they sign them."""

import json
import os

os.environ.update(
    AWS_ACCESS_KEY_ID="x",
    AWS_SECRET_ACCESS_KEY="y",
    AWS_CONFIG_FILE=os.devnull,
    AWS_SHARED_CREDENTIALS_FILE=os.devnull,
)

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, EndpointVariantError

OPERATIONS = {
    "sts": ("sts", "GetCallerIdentity"),
    "sso": ("sso", "GetRoleCredentials"),
    "sso_oidc": ("sso-oidc", "CreateToken"),
    "signin": ("signin", "CreateOAuth2Token"),
}
MORE = [
    "us-east-1-fips", "us-east-2-fips", "us-west-1-fips", "us-west-2-fips", "us-gov-west-1-fips",
    "us-gov-east-1-fips", "fips-us-east-1", "us-gov-future-1", "eu-future-9", "cn-future-1",
]
SESSION = botocore.session.Session()


def endpoint(service, region, fips, dual):
    model, operation = OPERATIONS[service]
    config = Config(use_fips_endpoint=fips, use_dualstack_endpoint=dual)
    try:
        client = SESSION.create_client(model, region_name=region, config=config)
    except EndpointVariantError:
        return [None, None]
    context = {
        "client_region": client.meta.region_name,
        "client_config": client.meta.config,
        "has_streaming_input": False,
        "auth_type": None,
        "unsigned_payload": None,
    }
    try:
        url, _, properties = client._resolve_endpoint_ruleset(
            client.meta.service_model.operation_model(operation), {}, context
        )
    except BotoCoreError:
        return [None, None]
    signing = ((properties or {}).get("signing") or {}).get("region")
    return [url.rstrip("/"), signing or client._request_signer.region_name]


def main():
    regions = []
    for partition in SESSION.get_component("data_loader").load_data("partitions")["partitions"]:
        regions += partition["regions"]
    regions += [region for region in MORE if region not in regions]
    rows = [
        [service, region, fips, dual] + endpoint(service, region, fips, dual)
        for service in OPERATIONS
        for region in regions
        for fips in (False, True)
        for dual in (False, True)
    ]
    print(json.dumps(rows))


main()
