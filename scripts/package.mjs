#!/usr/bin/env node
/*
 * Makes the packages in packages/, for users without a checkout. Two runs give the same bytes.
 *
 *   package.mjs [npm] [platform] [tarball] [deb] [image] [--arch x64,arm64] [--output FOLDER]
 *
 *   npm          userdma-VERSION.tgz, the npm package
 *   platform     userdma-linux-ARCH-VERSION.tgz, the npm package with the C libraries of an architecture
 *   tarball      userdma-VERSION-linux-ARCH.tar.xz, which needs no Node.js
 *   deb          userdma_VERSION_ARCH.deb for Debian 12 and 13, which needs no Node.js
 *   image        userdma-VERSION-oci.tar, a container image for the architectures
 *
 * Without names: all, but the image only where mmdebstrap is installed. The checkout must be built (`npm run package`
 * builds it first). Modules in scripts/package/.
 */
import { mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { createProgress } from '../dist/src/cli/progress.js'
import { inRoot, main, StepError, say } from './common.mjs'
import { makeDeb, makeTarball } from './package/archives.mjs'
import { makeImage, missingForImage } from './package/image.mjs'
import { ARCHITECTURES, compileNative } from './package/native.mjs'
import { packMain, packPlatform } from './package/npm.mjs'

/** A maker of one file for each architecture. */
const perArchitecture = make => ({
  parts: architectures => architectures,
  make: ({ libraries, work, output }, arch) => make(arch, libraries(arch), work, output),
})

/** A maker of one file for all architectures. */
const once = make => ({ parts: () => [undefined], make })

/** By the names of packages: the files that are made, and what makes one, from the job; it returns the path. */
const MAKERS = {
  npm: once(({ work, output }) => packMain(work, output)),
  platform: perArchitecture(packPlatform),
  tarball: perArchitecture(makeTarball),
  deb: perArchitecture(makeDeb),
  image: once(({ architectures, libraries, work, output }) => makeImage(architectures, libraries, work, output)),
}

/** The names of all packages that can be made here. Says why the image cannot. */
const possibleNames = architectures => {
  const missing = missingForImage(architectures)
  if (missing.length > 0) say(`the image is not made: install Debian's packages ${missing.join(' ')}`)
  return Object.keys(MAKERS).filter(name => name !== 'image' || missing.length === 0)
}

/** The values of the command line. Throws StepError. */
const jobOf = args => {
  const options = { arch: { type: 'string' }, output: { type: 'string' } }
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true })
  const architectures = values.arch?.split(',') ?? Object.keys(ARCHITECTURES)
  const unknown = [
    ...positionals.filter(name => !Object.hasOwn(MAKERS, name)),
    ...architectures.filter(arch => !Object.hasOwn(ARCHITECTURES, arch)),
  ]
  if (unknown.length > 0)
    throw new StepError(
      `package: unknown: ${unknown.join(' ')}; packages are ${Object.keys(MAKERS).join(', ')}, architectures ${Object.keys(ARCHITECTURES).join(', ')}`,
    )
  return {
    names: positionals.length > 0 ? positionals : possibleNames(architectures),
    architectures,
    output: resolve(values.output ?? inRoot('packages')),
  }
}

main(async args => {
  const { names, ...job } = jobOf(args)
  // What npm, tar and dpkg-deb store of modes must not depend on the umask.
  process.umask(0o022)
  mkdirSync(job.output, { recursive: true })
  const work = mkdtempSync(join(tmpdir(), 'userdma-package-'))
  const compiled = new Map()
  // At once: the tools block the event loop.
  const progress = createProgress('userdma package', { delay: 0 })
  const libraries = arch => {
    if (!compiled.has(arch)) compiled.set(arch, compileNative(arch, join(work, `native-${arch}`)))
    return compiled.get(arch)
  }
  try {
    const parts = names.flatMap(name => MAKERS[name].parts(job.architectures).map(part => ({ name, part })))
    for (const [i, { name, part }] of parts.entries()) {
      progress.show(() => `${name}${part === undefined ? '' : ` for ${part}`}, ${i + 1} of ${parts.length}`)
      const file = await MAKERS[name].make({ ...job, libraries, work: mkdtempSync(join(work, `${name}-`)) }, part)
      progress.clear()
      say(`${file}: ${(statSync(file).size / 1e6).toFixed(1)} MB`)
    }
  } finally {
    progress.end()
    rmSync(work, { recursive: true, force: true })
  }
})
