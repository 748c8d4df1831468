"""Prints aws-cred-chain's table of partitions and endpoints, generated from botocore's data."""

import json
import os
import re

import botocore
import botocore.session
from botocore.config import Config
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import EndpointVariantError

FOLDER = os.path.join(os.path.dirname(botocore.__file__), "data")
SERVICES = {
    "sts": ("sts", "sts", {"UseGlobalEndpoint": False}),
    "sso": ("sso", "portal.sso", {}),
    "sso_oidc": ("sso-oidc", "oidc", {}),
    "signin": ("signin", "signin", {"IsControlPlane": False}),
}
FLAGS = [(False, False), (False, True), (True, False), (True, True)]


def read(name):
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return json.load(file)


def prefixes(regex):
    match = re.fullmatch(r"\^(.*?)\\-\\w\+\\-\\d\+\$", regex)
    body = match.group(1).replace("\\-", "-")
    inner = re.search(r"\((.*?)\)", body)
    if not inner:
        return [body + "-"]
    return [body[: inner.start()] + one + body[inner.end() :] + "-" for one in inner.group(1).split("|")]


def rules(service):
    loader = botocore.session.Session().get_component("data_loader")
    ruleset = loader.load_service_model(service, "endpoint-rule-set-1")
    return EndpointProvider(ruleset, read("partitions.json")), ruleset["parameters"]


def url(provider, parameters, region, fips, dual, extra):
    values = {"Region": region, "UseFIPS": fips, "UseDualStack": dual}
    values.update({key: value for key, value in extra.items() if key in parameters})
    endpoint = provider.resolve_endpoint(**values)
    return endpoint.url


def is_modeled(region, **flags):
    """Returns whether botocore can make a client with these flags in a region."""
    try:
        config = Config(**flags)
        session = botocore.session.Session()
        session.set_credentials("x", "y")
        session.create_client("sts", region_name=region, config=config)
    except EndpointVariantError:
        return False
    return True


def main():
    modern = {part["id"]: part for part in read("partitions.json")["partitions"]}
    legacy = {part["partition"]: part for part in read("endpoints.json")["partitions"]}
    print("pub(super) const PARTITIONS: &[Partition] = &[")
    for name, part in modern.items():
        outputs = part["outputs"]
        region = next(r for r in part["regions"] if r.startswith(tuple(prefixes(part["regionRegex"]))))
        dual = outputs["supportsDualStack"] and is_modeled(region, use_dualstack_endpoint=True)
        fips = outputs["supportsFIPS"] and is_modeled(region, use_fips_endpoint=True)
        known = [region for region in part["regions"] if not region.startswith(tuple(prefixes(part["regionRegex"])))]
        print("    Partition {")
        print(f'        name: "{name}",')
        print(f"        prefixes: &{json.dumps(prefixes(part['regionRegex']))},")
        print(f"        others: &{json.dumps(known)},")
        print(f'        suffix: "{outputs["dnsSuffix"]}",')
        print(f'        dual_stack_suffix: "{outputs["dualStackDnsSuffix"]}",')
        print(f"        has_fips: {str(fips).lower()},")
        print(f"        has_dual_stack: {str(dual).lower()},")
        print("    },")
    print("];\n")
    print("/// Regions that a service signs for under another name: service, region, name.")
    print("pub(super) const SIGNED_AS: &[(&str, &str, &str)] = &[")
    for service in SERVICES:
        model = SERVICES[service][0]
        for part in legacy.values():
            endpoints = part["services"].get(model, {}).get("endpoints", {})
            for region, endpoint in endpoints.items():
                scope = endpoint.get("credentialScope", {}).get("region")
                if region in modern[part["partition"]]["regions"] and scope not in (None, region):
                    print(f'    ("{service}", "{region}", "{scope}"),')
    print("];\n")
    print("pub(super) const EXCEPTIONS: &[Exception] = &[")
    for service, (model, host, extra) in SERVICES.items():
        provider, parameters = rules(model)
        for name, part in modern.items():
            outputs = part["outputs"]
            prefix = prefixes(part["regionRegex"])[0]
            unknown = prefix + "nowhere-9"
            for fips, dual in FLAGS:
                def regular(region):
                    suffix = outputs["dualStackDnsSuffix" if dual else "dnsSuffix"]
                    return f"https://{host}{'-fips' if fips else ''}.{region}.{suffix}"

                def show(region_or_name, is_region, address, region):
                    print("    Exception {")
                    print(f'        service: "{service}",')
                    print(f'        place: Place::{"Region" if is_region else "Partition"}("{region_or_name}"),')
                    print(f"        fips: {str(fips).lower()},")
                    print(f"        dual_stack: {str(dual).lower()},")
                    print(f'        url: "{address.replace(region, "{region}")}",')
                    print("    },")

                of_partition = url(provider, parameters, unknown, fips, dual, extra)
                general = of_partition.replace(unknown, "{region}")
                if of_partition != regular(unknown):
                    show(name, False, of_partition, unknown)
                for region in part["regions"]:
                    found = url(provider, parameters, region, fips, dual, extra)
                    if found != general.replace("{region}", region):
                        show(region, True, found, region)
    print("];")


main()
