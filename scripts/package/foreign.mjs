/*
 * Other npm packages that installed trees contain. Files of Node.js and koffi's native part are from archives, each
 * pinned by its hash, and downloaded once, into build/foreign/.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { inRoot, StepError } from '../common.mjs'

/** Node.js 24 for glibc 2.28 and newer. A new version needs the `dist.integrity` of both packages (`npm view`). */
const NODE = {
  version: '24.21.0',
  integrity: {
    x64: 'sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==',
    arm64: 'sha512-FpJRPEz2OvvTLfjIOlNGFY9JLPMKgl5m+d4oGYBLg24kJ1mmvN1Zl/HPJgF4HDaJ51ISev1l1cRZ/DM+keXW5g==',
  },
}

const lock = JSON.parse(readFileSync(inRoot('package-lock.json'), 'utf8'))

const locked = name => ({ name, ...lock.packages[`node_modules/${name}`] })

/** The packages that the page of `userdma inspect` contains. */
export const pagePackages = () => [locked('preact'), locked('uplot')]

/**
 * The foreign packages of an installed tree beside the page's, by use. `license`: an SPDX expression. `hasPlugin`: with
 * `userdma device-plugin`.
 */
export const foreignPackages = (arch, hasPlugin = false) => {
  const koffi = `@koromix/koffi-linux-${arch}`
  return {
    node: { name: `node-linux-${arch}`, version: NODE.version, integrity: NODE.integrity[arch], license: 'MIT' },
    koffi: locked(koffi),
    commander: locked('commander'),
    yaml: locked('yaml'),
    ...(hasPlugin && { grpc: locked('@grpc/grpc-js'), orderedMap: locked('@js-sdsl/ordered-map') }),
  }
}

const isIntact = (path, integrity) =>
  existsSync(path) && integrity === `sha512-${createHash('sha512').update(readFileSync(path)).digest('base64')}`

/** The path of a package's archive. Throws StepError if it cannot be had, or has another hash. */
const archiveOf = ({ name, version, integrity }) => {
  const folder = inRoot('build', 'foreign')
  const path = join(folder, `${name.replaceAll('/', '-')}-${version}.tgz`)
  if (isIntact(path, integrity)) return path
  mkdirSync(folder, { recursive: true })
  const download = mkdtempSync(join(folder, 'download-'))
  try {
    const args = ['pack', `${name}@${version}`, '--ignore-scripts', '--json', '--pack-destination', download]
    const { status, stdout, stderr } = spawnSync('npm', args, { encoding: 'utf8' })
    if (status !== 0) throw new StepError(`npm pack ${name}@${version} failed: ${stderr}`)
    const packed = join(download, basename(JSON.parse(stdout)[0].filename))
    if (!isIntact(packed, integrity)) throw new StepError(`${name}@${version} does not have the hash ${integrity}`)
    renameSync(packed, path)
  } finally {
    rmSync(download, { recursive: true, force: true })
  }
  return path
}

/** Extracts files of a package into `folder`, without their folders. Throws StepError. */
export const extract = (foreign, files, folder) => {
  mkdirSync(folder, { recursive: true })
  const members = files.map(file => `package/${file}`)
  const flags = ['--no-same-owner', '--transform', 's,.*/,,', '-xzf', archiveOf(foreign), '-C', folder]
  const { status, stderr } = spawnSync('tar', [...flags, ...members], { encoding: 'utf8' })
  if (status !== 0) throw new StepError(`tar: ${stderr}`)
}
