/*
 * Archives of installed trees: the tarball and the Debian package. All files have one time, so that two runs give the
 * same bytes.
 */
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { filesBelow, inRoot } from '../common.mjs'
import { ARCHITECTURES } from './native.mjs'
import { manifest } from './npm.mjs'
import { runTool, sourceDate, writeTar } from './tools.mjs'
import { stageTree } from './tree.mjs'

/** The same in all runs, whatever the number of processors. */
const XZ = '-6 --threads=2 --block-size=32MiB'

/** Makes the tarball of an architecture in `output`; returns its path. `work`: an empty folder. */
export const makeTarball = async (arch, libraries, work, output) => {
  const name = `${manifest.name}-${manifest.version}-linux-${arch}`
  await stageTree(join(work, name), arch, libraries)
  const path = join(output, `${name}.tar.xz`)
  writeTar(path, work, [name], '-I', `xz ${XZ}`)
  return path
}

/** libstdc++ and libgcc are for Node.js; the provider is for programs. */
const DEPENDS = 'libc6 (>= 2.28), libgcc-s1 | libgcc1, libstdc++6 (>= 5.2), ibverbs-providers'

const kibibytes = files => files.reduce((sum, path) => sum + Math.ceil(statSync(path).size / 1024), 0)

const control = (arch, files) => `Package: ${manifest.name}
Version: ${manifest.version}
Architecture: ${ARCHITECTURES[arch].debian}
Maintainer: userdma developers <userdma@lists.invalid>
Installed-Size: ${kibibytes(files)}
Depends: ${DEPENDS}
Suggests: ibverbs-utils, perftest, rdmacm-utils
Section: net
Priority: optional
Description: RDMA devices in user space for unmodified programs
 Programs of libibverbs, librdmacm and libibumad find a device and move data
 over it: no RDMA hardware, no kernel module, no root. Calls and packets can be
 traced, the network can be made bad, and mistakes in the use of verbs are
 found. Brings its own Node.js.
`

const COPYRIGHT = `userdma, and the Node.js, koffi, commander, preact and uPlot that it contains, are under the MIT licence. Node.js contains parts under other licences. The texts are in /usr/share/doc/${manifest.name}/licenses:

userdma/LICENSE, node/LICENSE, koffi/LICENSE, commander/LICENSE, preact/LICENSE, uplot/LICENSE

yaml, which it contains too, is under the ISC licence: yaml/LICENSE

${readFileSync(inRoot('LICENSE'), 'utf8')}`

/** Node.js is as nodejs.org builds it. */
const OVERRIDES = ['embedded-library', 'hardening-no-pie']
  .map(tag => `${manifest.name}: ${tag} *usr/lib/userdma/bin/node*\n`)
  .join('')

const writeBelow = (folder, path, text) => {
  mkdirSync(dirname(join(folder, path)), { recursive: true })
  writeFileSync(join(folder, path), text)
}

/** Compresses files in place, as policy wants documentation; without names and times. */
const gzip = paths => runTool('gzip', ['-9n', ...paths])

const stageDebian = async (folder, arch, libraries) => {
  await stageTree(join(folder, 'usr'), arch, libraries)
  const doc = join(folder, 'usr', 'share', 'doc', manifest.name)
  const date = new Date(sourceDate() * 1000).toUTCString().replace('GMT', '+0000')
  writeBelow(
    doc,
    'changelog',
    `${manifest.name} (${manifest.version}) unstable; urgency=medium\n\n  * The changes are in CHANGELOG.md of the sources.\n\n -- userdma developers <userdma@lists.invalid>  ${date}\n`,
  )
  writeBelow(doc, 'copyright', COPYRIGHT)
  writeBelow(folder, `usr/share/lintian/overrides/${manifest.name}`, OVERRIDES)
  gzip([join(doc, 'changelog'), ...filesBelow(join(folder, 'usr', 'share', 'man'), () => true)])
  const files = filesBelow(join(folder, 'usr'), () => true)
  writeBelow(folder, 'DEBIAN/control', control(arch, files))
  for (const name of ['postinst', 'prerm']) {
    copyFileSync(inRoot('scripts', 'package', 'debian', name), join(folder, 'DEBIAN', name))
    chmodSync(join(folder, 'DEBIAN', name), 0o755)
  }
  const sums = spawnSync(
    'md5sum',
    files.map(path => relative(folder, path)),
    { cwd: folder, encoding: 'utf8' },
  )
  writeBelow(folder, 'DEBIAN/md5sums', sums.stdout)
}

/** Sets the time of all files and folders below and including `path`. */
const setTimes = (path, seconds) => {
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const inner = join(path, entry.name)
    if (entry.isDirectory()) setTimes(inner, seconds)
    else lutimesSync(inner, seconds, seconds)
  }
  lutimesSync(path, seconds, seconds)
}

/** Makes the Debian package of an architecture in `output`; returns its path. `work`: an empty folder. */
export const makeDeb = async (arch, libraries, work, output) => {
  const folder = join(work, `deb-${arch}`)
  await stageDebian(folder, arch, libraries)
  const seconds = sourceDate()
  setTimes(folder, seconds)
  const path = join(output, `${manifest.name}_${manifest.version}_${ARCHITECTURES[arch].debian}.deb`)
  const flags = ['--root-owner-group', '-Zxz', '-z6', '--threads-max=2']
  runTool('dpkg-deb', [...flags, '--build', folder, path], { SOURCE_DATE_EPOCH: String(seconds) })
  return path
}
