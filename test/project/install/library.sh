#!/bin/sh
# The guide of the library in a fresh folder: install, the first program, the program of the guide, the RPC example,
# compiled with each version of TypeScript: library.sh PACKAGES TYPESCRIPT…
# Prints "TYPESCRIPT works" for each.
set -eu
packages=$(cd "$1" && pwd)
shift
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm pkg set type=module
npm install --no-audit --no-fund --loglevel=error "$packages"/userdma-[0-9]*.tgz >/dev/null

userdma=node_modules/userdma
# The blocks of a page in TypeScript, as one program.
program() {
  sed -n '/^```ts$/,/^```$/p' "$userdma/$1" | sed '/^```/d'
}
program README.md >first.ts
program docs/start/library.md >guide.ts
cp "$userdma/examples/rpc.ts" .

for typescript; do
  npm install --no-audit --no-fund --loglevel=error -D "typescript@$typescript" @types/node@20 >/dev/null
  for flags in '' '--noUncheckedIndexedAccess --exactOptionalPropertyTypes'; do
    # Without --skipLibCheck, which would hide mistakes in the types of userdma.
    npx tsc --strict --target es2022 --lib es2022,esnext.disposable --types node --module nodenext $flags ./*.ts
  done
  node first.js
  node guide.js >guide.txt
  grep -q '^5 1000000$' guide.txt
  node rpc.js | grep '^8 of 8 clients'
  rm ./*.js
  echo "$typescript works"
done
