"""Distils a published Bicep type file of container groups into what a request is checked against.

usage: schema.py types.json >container-groups.json

Of every property it keeps the type and whether a request must have it or cannot set it. The
source is Azure/bicep-types-az, generated/containerinstance/microsoft.containerinstance.
"""

import json
import sys

REQUIRED, READ_ONLY = 1, 2


def index(reference):
    return int(reference["$ref"].removeprefix("#/"))


def distil(types, wanted):
    kept = {}

    def visit(number):
        if str(number) in kept:
            return str(number)
        source, kind = types[number], types[number]["$type"]
        result = kept[str(number)] = {}
        if kind == "StringLiteralType":
            result["enum"] = [source["value"]]
        elif kind == "UnionType":
            members = [types[index(element)] for element in source["elements"]]
            result["enum"] = [m["value"] for m in members if m["$type"] == "StringLiteralType"]
        elif kind == "ArrayType":
            result["items"] = visit(index(source["itemType"]))
        elif kind == "ObjectType":
            result["properties"] = {
                name: {
                    "type": visit(index(value["type"])),
                    "required": bool(value["flags"] & REQUIRED),
                    "readOnly": bool(value["flags"] & READ_ONLY),
                }
                for name, value in source["properties"].items()
            }
            if "additionalProperties" in source:
                result["additional"] = visit(index(source["additionalProperties"]))
        else:
            result["scalar"] = {
                "StringType": "string",
                "IntegerType": "number",
                "BooleanType": "boolean",
                "AnyType": "any",
            }[kind]
        return str(number)

    return {"root": visit(wanted), "types": kept}


types = json.load(open(sys.argv[1], encoding="utf-8"))
name = "Microsoft.ContainerInstance/containerGroups"
(root,) = [n for n, t in enumerate(types) if t["$type"] == "ObjectType" and t["name"] == name]
print(json.dumps(distil(types, root), separators=(",", ":"), sort_keys=True))
