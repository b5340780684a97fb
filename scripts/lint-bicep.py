"""lint-bicep.py FILE...: parses Bicep files; prints each place that is not Bicep."""

import sys

import tree_sitter_bicep
from tree_sitter import Language, Node, Parser


def mistakes(node: Node):
    """The smallest nodes that hold what could not be parsed."""
    if node.type == "ERROR" or node.is_missing:
        yield node
    elif node.has_error:
        for child in node.children:
            yield from mistakes(child)


def main(paths: list[str]) -> int:
    parser = Parser(Language(tree_sitter_bicep.language()))
    found = 0
    for path in paths:
        with open(path, "rb") as file:
            tree = parser.parse(file.read())
        for node in mistakes(tree.root_node):
            row, column = node.start_point
            what = "missing" if node.is_missing else "not Bicep"
            text = (node.text or b"").decode(errors="replace").splitlines()[:1]
            print(f"{path}:{row + 1}:{column + 1}: {what}: {' '.join(text)}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: lint-bicep.py FILE...")
    sys.exit(main(sys.argv[1:]))
