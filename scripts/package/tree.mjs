/*
 * The installed tree, which needs no Node.js: what the tarball, the Debian package and images have below their prefix
 * (/usr in the Debian package).
 *
 *   bin/userdma                     starts lib/userdma/bin/node
 *   lib/userdma/                    Node.js, the compiled program, its pages, the C libraries, npm packages
 *   lib/systemd/                    units of a user and of the system
 *   include/                        userdma.h, userdma_check.h and userdma_gtest.h, for programs and tests that say
 *                                   something to `userdma check`
 *   share/userdma/                  the same for Python, Rust and Go: userdma.py, pytest_userdma.py, userdma.rs,
 *                                   userdma.go
 *   share/man/, share/…             manual page and completion of shells, as `userdma` prints them
 *   share/doc/userdma/              licences, and what the tree contains
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import { bundleProgram } from '../bundle.mjs'
import { filesBelow, inRoot, StepError } from '../common.mjs'
import { extract, foreignPackages, pagePackages } from './foreign.mjs'
import { strip, tooNewSymbols } from './native.mjs'
import { manifest } from './npm.mjs'
import { helpFiles } from './pages.mjs'
import { SBOM, sbomOf } from './sbom.mjs'

/**
 * It resolves links to itself: the tree may be anywhere. Of bin/userdma it has the lines before Node.js that do not
 * look for a folder.
 */
const launcher = () => `#!/bin/sh
userdma_home=$(readlink -f "$0")
userdma_home=\${userdma_home%/bin/*}/lib/userdma
${/^if \[ "\$1" = run[\s\S]*?^export .*$/m.exec(readFileSync(inRoot('bin', 'userdma'), 'utf8'))[0]}
exec "$userdma_home/bin/node" $userdma_heap "$userdma_home/bin/userdma" "$@"
`

const copy = (from, to) => {
  mkdirSync(dirname(to), { recursive: true })
  cpSync(from, to, { recursive: true })
}

const write = (path, text, mode = 0o644) => {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, text)
  chmodSync(path, mode)
}

/**
 * The program: JavaScript and what it reads, without types and maps, which only programs that import userdma use. The
 * pages of `userdma help` are here, not in share/doc, which slim images leave out.
 */
export const stageProgram = async (home, hasPlugin = false) => {
  for (const path of helpFiles()) copy(path, join(home, relative(inRoot(), path)))
  // Without its first line, which names another Node.js.
  write(join(home, 'bin', 'userdma'), readFileSync(inRoot('bin', 'userdma'), 'utf8').replace(/^#!.*\n/, ''))
  const bundles = Object.keys(JSON.parse(readFileSync(inRoot('scripts', 'bundled.json'), 'utf8')))
    .filter(name => hasPlugin || name !== 'device-plugin')
    .map(name => `dist/${name}.cjs`)
  for (const name of [
    'bin/package.json',
    'scripts/bundled.json',
    'scripts/compile-bundle.cjs',
    'dist/page',
    'deploy',
    ...bundles,
  ])
    copy(inRoot(name), join(home, name))
  await bundleProgram(join(home, 'dist', 'program'))
  // by `exports` a daemon finds what its drivers import (src/daemon/devices/driver-modules.ts)
  const { name, version, license, exports } = manifest
  write(join(home, 'package.json'), `${JSON.stringify({ name, version, license, type: 'module', exports }, null, 2)}\n`)
}

const stageForeign = (home, doc, arch, hasPlugin) => {
  const { node, koffi, commander, yaml, grpc, orderedMap } = foreignPackages(arch, hasPlugin)
  const licenseFolder = name => join(doc, 'licenses', name)
  const stageLicense = ({ name }) => copy(inRoot('node_modules', name, 'LICENSE'), join(licenseFolder(name), 'LICENSE'))
  const stageScripts = (foreign, files) => {
    const { name } = foreign
    const from = inRoot('node_modules', name)
    const isScript = path => !path.endsWith('.d.ts')
    for (const file of files)
      cpSync(join(from, file), join(home, 'node_modules', name, file), { recursive: true, filter: isScript })
    stageLicense(foreign)
  }
  extract(node, ['bin/node'], join(home, 'bin'))
  extract(node, ['LICENSE'], licenseFolder('node'))
  // Where src/host/native.ts loads it, without koffi's own loader.
  const native = join(home, 'node_modules', koffi.name, `linux_${arch}`)
  extract(koffi, [`linux_${arch}/koffi.node`], native)
  copy(inRoot('node_modules', 'koffi', 'LICENSE.txt'), join(licenseFolder('koffi'), 'LICENSE'))
  for (const path of [join(home, 'bin', 'node'), join(native, 'koffi.node')]) strip(arch, path)
  stageScripts(commander, ['package.json', 'index.js', 'esm.mjs', 'lib'])
  stageScripts(yaml, ['package.json', 'dist'])
  // which dist/page and dist/device-plugin.cjs contain
  for (const bundled of [...pagePackages(), ...(hasPlugin ? [grpc, orderedMap] : [])]) stageLicense(bundled)
}

/** Files below share/ that commands of userdma print. */
const PRINTED = {
  'man/man1/userdma.1': ['man'],
  'bash-completion/completions/userdma': ['completion', 'bash'],
  'zsh/vendor-completions/_userdma': ['completion', 'zsh'],
  'fish/vendor_completions.d/userdma.fish': ['completion', 'fish'],
}

const stagePrinted = share => {
  for (const [path, args] of Object.entries(PRINTED)) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [inRoot('bin', 'userdma'), ...args], {
      encoding: 'utf8',
    })
    if (status !== 0) throw new StepError(`userdma ${args.join(' ')}: ${stderr}`)
    write(join(share, path), stdout)
  }
}

/** Modes as after an installation by root, whatever the umask of the checkout was. */
const setModes = folder => {
  chmodSync(folder, 0o755)
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) setModes(path)
    else chmodSync(path, statSync(path).mode & 0o100 && !/\.(?:node|so)$/.test(path) ? 0o755 : 0o644)
  }
}

/**
 * Stages the tree in `prefix`, a folder that does not exist. `libraries`: the compiled C libraries. Throws StepError if
 * a file needs a newer glibc than we promise. `hasPlugin`: with `userdma device-plugin`.
 */
export const stageTree = async (prefix, arch, libraries, hasPlugin = false) => {
  const home = join(prefix, 'lib', 'userdma')
  const doc = join(prefix, 'share', 'doc', 'userdma')
  write(join(prefix, 'bin', 'userdma'), launcher(), 0o755)
  await stageProgram(home, hasPlugin)
  for (const path of libraries) copy(path, join(home, 'build', 'native', basename(path)))
  stageForeign(home, doc, arch, hasPlugin)
  for (const header of ['userdma.h', 'userdma_check.h', 'userdma_gtest.h'])
    copy(inRoot('shim', 'include', header), join(prefix, 'include', header))
  copy(inRoot('shim', 'languages'), join(prefix, 'share', 'userdma'))
  copy(inRoot('LICENSE'), join(doc, 'licenses', 'userdma', 'LICENSE'))
  write(join(doc, SBOM), sbomOf(manifest, [...Object.values(foreignPackages(arch, hasPlugin)), ...pagePackages()]))
  stagePrinted(join(prefix, 'share'))
  for (const name of ['user', 'system'])
    copy(inRoot('scripts', 'package', 'systemd', name), join(prefix, 'lib', 'systemd', name))
  setModes(prefix)
  const elf = filesBelow(home, path => /(?:\.so|\.node|\/node)$/.test(path))
  const tooNew = tooNewSymbols(elf)
  if (tooNew.length > 0) throw new StepError(`the tree needs a newer glibc: ${tooNew.join(', ')}`)
}
