"""Reads the operator's own files about products, those in `products_dir`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from siemrelay import registry
from siemrelay.config.describe import field_names, nearest
from siemrelay.config.files import text_of
from siemrelay.config.option_models import source_model
from siemrelay.config.validation_errors import explain
from siemrelay.config.yaml_document import Document, KeyPath, parse
from siemrelay.core.errors import ConfigurationRefused, Fault
from siemrelay.products.product import BUILT_IN, NO_PRODUCT, ProductFile, Products

# One a product: nobody has as many.
_MOST_FILES: Final = 200


def own_products(document: Document, folder: Any) -> Products:
    """The built-in products and those of the files in `folder`, which may be no path at all.

    Faults, each in its own file, are added to the document.
    """
    if not isinstance(folder, str) or not folder.startswith("/"):
        return BUILT_IN  # absent, or a fault that is reported elsewhere
    try:
        names = sorted(file.name for file in Path(folder).iterdir() if _is_product(file.name))
    except OSError as error:
        message = f"the directory cannot be read: {os.strerror(error.errno or 0)}"
        document.faults.append(document.fault(("products_dir",), message))
        return BUILT_IN
    if len(names) > _MOST_FILES:
        message = f"has {len(names):,} files; at most {_MOST_FILES} are read"
        document.faults.append(document.fault(("products_dir",), message))
        return BUILT_IN
    files: dict[str, ProductFile] = {}
    documents: dict[str, Document] = {}
    for name in names:
        path, product = str(Path(folder) / name), name.removesuffix(".yaml")
        inner, file = _read(path)
        document.faults += [replace(fault, file=path) for fault in inner.faults]
        documents[product] = inner
        # A placeholder: a source that names it is not at fault.
        files[product] = file or ProductFile(summary="")
    products = Products(files)
    for product, inner in documents.items():
        for fault in _unknown(product, files[product], products, inner):
            path = str(Path(folder) / f"{product}.yaml")
            document.faults.append(replace(fault, file=path))
    return products if not document.faults else _usable(products, files)


def _is_product(name: str) -> bool:
    return name.endswith(".yaml") and not name.startswith(".")


def _read(path: str) -> tuple[Document, ProductFile | None]:
    try:
        if not Path(path).is_file():  # a FIFO would hang the start
            raise ConfigurationRefused(path, [Fault("is not a regular file")])
        inner = parse(text_of(path))
    except ConfigurationRefused as refused:
        return Document(faults=refused.faults), None
    if inner.faults:
        return inner, None
    if not isinstance(inner.value, dict):
        inner.faults.append(inner.fault((), "expected `summary:`, `fields:` and `types:`"))
        return inner, None
    try:
        return inner, ProductFile.model_validate(inner.value)
    except ValidationError as error:
        inner.faults += explain(error, ProductFile, inner.value, (), inner)
        return inner, None


def _unknown(
    product: str, file: ProductFile, products: Products, inner: Document
) -> Iterator[Fault]:
    """The faults of names in a file that mean nothing: of products, source types, options."""
    listed: list[tuple[KeyPath, str]] = [
        (("types_of", number), name) for number, name in enumerate(file.types_of)
    ]
    if file.extends not in (NO_PRODUCT, product):
        listed.append((("extends",), file.extends))
    for path, name in listed:
        if name not in products:
            yield inner.fault(path, f"unknown product `{name}`{_hint(name, products)}")
    try:
        products[product]
    except KeyError as missing:
        if missing.args[0] in products:
            yield inner.fault(("extends",), f"`{missing.args[0]}` extends itself in a circle")
    for kind, options in file.sources.items():
        if kind not in registry.SOURCES:
            message = f"unknown source type `{kind}`{_hint(kind, registry.SOURCES)}"
            yield inner.fault(("sources", kind), message, at_key=True)
            continue
        decoder = options.get("decoder", registry.SOURCES[kind].decoder)
        if decoder not in registry.DECODERS:
            message = f"unknown decoder `{decoder}`{_hint(str(decoder), registry.DECODERS)}"
            yield inner.fault(("sources", kind, "decoder"), message)
            continue
        known = field_names(source_model(kind, decoder))
        for key in options:
            if key not in known:
                message = f"a source of type {kind} has no `{key}`{_hint(key, known)}"
                yield inner.fault(("sources", kind, key), message, at_key=True)


def _hint(name: str, known: Mapping[str, Any]) -> str:
    meant = nearest(name, list(known))
    return f"; did you mean `{meant}`?" if meant else ""


def _usable(products: Products, files: Mapping[str, ProductFile]) -> Products:
    """With placeholders for the files that cannot be used, so that sources find them."""
    good = dict[str, ProductFile]()
    for name, file in files.items():
        try:
            products[name]
            good[name] = file.model_copy(update={"sources": {}, "types_of": []})
        except KeyError:
            good[name] = ProductFile(summary="")
    return Products(good)
