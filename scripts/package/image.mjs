/*
 * The container image: a Debian root, which mmdebstrap makes, and the installed tree below /usr/local. No container
 * tool is needed. Debian's part is that of the mirror at the time.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { inRoot } from '../common.mjs'
import { ARCHITECTURES } from './native.mjs'
import { manifest } from './npm.mjs'
import { writeOciArchive } from './oci.mjs'
import { runTool, sourceDate, writeTar } from './tools.mjs'
import { stageTree } from './tree.mjs'

const SUITE = 'trixie'
const PACKAGES = ['ibverbs-utils', 'ibverbs-providers']

/** As in Debian's own slim images: packages that are installed later have no manuals and translations either. */
const EXCLUDED = ['man', 'info', 'locale', 'groff', 'linda', 'lintian', 'doc'].map(
  name => `path-exclude=/usr/share/${name}/*`,
)
const DPKG_OPTIONS = [...EXCLUDED, 'path-include=/usr/share/doc/*/copyright']

const USER = { name: manifest.name, id: 1000 }

/** Hooks of mmdebstrap, which get the root as "$1": a user, and no files of the machine that makes the image. */
const HOOKS = [
  `chroot "$1" useradd --uid ${USER.id} --create-home --shell /bin/bash ${USER.name}`,
  'rm -f "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/etc/passwd- "$1"/etc/group- "$1"/etc/shadow- "$1"/etc/gshadow-',
]

/** Programs that an image of an architecture needs, and their Debian packages, beside those of its tree. */
export const toolsForImage = arch => ({
  mmdebstrap: 'mmdebstrap',
  ...(arch === 'arm64' && process.arch !== 'arm64'
    ? { 'arch-test': 'arch-test', 'qemu-aarch64-static': 'qemu-user-static' }
    : {}),
})

const makeRoot = (arch, path) => {
  const options = [
    '--variant=minbase',
    `--architectures=${ARCHITECTURES[arch].debian}`,
    `--include=${PACKAGES.join(',')}`,
    ...DPKG_OPTIONS.map(option => `--dpkgopt=${option}`),
    ...HOOKS.map(hook => `--customize-hook=${hook}`),
  ]
  const [program, ...args] = [
    ...(arch === 'arm64' ? [inRoot('scripts', 'package', 'emulate-arm64.sh')] : []),
    // As root, mmdebstrap mounts file systems, which must be private and end with it.
    ...(process.getuid() === 0 ? ['unshare', '--mount'] : []),
    ...['mmdebstrap', ...options, SUITE, path],
  ]
  runTool(program, args, { SOURCE_DATE_EPOCH: String(sourceDate()) })
}

const makeTree = async (arch, libraries, work, path) => {
  const root = join(work, `root-${arch}`)
  mkdirSync(join(root, 'usr'), { recursive: true })
  await stageTree(join(root, 'usr', 'local'), arch, libraries, true)
  // Without units of systemd, and without the folders above, which are Debian's.
  writeTar(path, root, ['usr/local/bin/userdma', 'usr/local/lib/userdma', 'usr/local/share'])
}

const config = {
  User: `${USER.id}:${USER.id}`,
  Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
  Entrypoint: [manifest.name],
  Cmd: ['--help'],
  WorkingDir: `/home/${USER.name}`,
  Labels: {
    'org.opencontainers.image.title': manifest.name,
    'org.opencontainers.image.description': manifest.description,
    'org.opencontainers.image.version': manifest.version,
    'org.opencontainers.image.licenses': manifest.license,
  },
}

/**
 * Makes the image in `output`, of the architectures; returns its path. `libraries`: a function to a promise of
 * an architecture's compiled C libraries. `work`: an empty folder. Throws StepError.
 */
export const makeImage = async (architectures, libraries, work, output) => {
  const images = []
  for (const arch of architectures) {
    const [debian, tree] = ['debian', 'tree'].map(layer => join(work, `${layer}-${arch}.tar`))
    makeRoot(arch, debian)
    await makeTree(arch, await libraries(arch), work, tree)
    const architecture = ARCHITECTURES[arch].debian
    images.push({
      platform: { architecture, os: 'linux', ...(arch === 'arm64' ? { variant: 'v8' } : {}) },
      config,
      layers: [
        { path: debian, createdBy: `mmdebstrap ${SUITE} with ${PACKAGES.join(', ')}` },
        { path: tree, createdBy: `${manifest.name} ${manifest.version}` },
      ],
    })
  }
  const path = join(output, `${manifest.name}-${manifest.version}-oci.tar`)
  // A name without a registry would be one of Docker's to containerd, and so to kubelet.
  const name = `localhost/${manifest.name}:${manifest.version}`
  writeOciArchive(path, work, { name, seconds: sourceDate(), images })
  return path
}
