"""The stub of the native half against what is there: python test_stubs.py PATH/_palmtop.pyi"""

import ast
import inspect
import sys

import palmtop
from palmtop import _palmtop

with open(sys.argv[1], encoding="utf-8") as file:
    stub = ast.parse(file.read())


def public(names):
    return {name for name in names if not name.startswith("_")}


def parameters(function):
    names = [argument.arg for argument in function.args.args]
    return [name for name in names if name not in ("self", "cls")]


def signature(thing):
    return [name for name in inspect.signature(thing).parameters if name != "self"]


classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
functions = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef)}
assert public([*classes, *functions]) == public(vars(_palmtop)), public(vars(_palmtop)) ^ public([*classes, *functions])
for name, function in functions.items():
    assert signature(getattr(_palmtop, name)) == parameters(function), name
compared = 0
for name, node in classes.items():
    there = getattr(_palmtop, name)
    methods = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
    if issubclass(there, BaseException):
        assert not methods and [base.id for base in node.bases] == [there.__base__.__name__], name
        continue
    assert public(methods) == public(vars(there)), (name, public(methods) ^ public(vars(there)))
    for method, function in methods.items():
        if method == "__new__":
            assert signature(there) == parameters(function), name
        elif callable(getattr(there, method)):
            assert signature(getattr(there, method)) == parameters(function), (name, method)
        else:
            assert [decorator.id for decorator in function.decorator_list] == ["property"], (name, method)
        compared += 1
assert compared > 20, "the stub says nothing"

# The half that is for users is annotated where it stands: every parameter, and what comes back.
for name in palmtop.__all__:
    thing = getattr(palmtop, name)
    for method, function in vars(thing).items() if inspect.isclass(thing) else ():
        # Those that dataclasses bring have none.
        if method.startswith("__") and method != "__init__":
            continue
        function = getattr(function, "__func__", getattr(function, "fget", function))
        if inspect.isfunction(function) and function.__module__.startswith("palmtop"):
            missing = set(inspect.signature(function).parameters) - {"self", "cls"} - set(function.__annotations__)
            assert not missing, (name, method, missing)
            assert method == "__init__" or "return" in function.__annotations__, (name, method)
