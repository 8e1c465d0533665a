#!/usr/bin/env bash
# Generates src/gen from proto. The compiler is fetched by npm for this run only: it is large and rarely needed.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf src/gen
npm exec --yes --package=@bufbuild/buf@1.75.0 --package=@bufbuild/protoc-gen-es@2.17.0 -- \
  buf generate proto --template '{"version":"v2","plugins":[{"local":"protoc-gen-es","out":"src/gen","opt":["target=js+dts","import_extension=js"]}]}'
