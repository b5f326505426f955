#!/usr/bin/env node
/*
 * Makes the packages in packages/, for users without a checkout. Two runs give the same bytes. A package has its name
 * when it is complete.
 *
 *   package.mjs [npm] [platform] [tarball] [deb] [image] [--arch x64,arm64] [--all] [--output FOLDER]
 *
 *   npm          userdma-VERSION.tgz, the npm package
 *   platform     userdma-linux-ARCH-VERSION.tgz, the npm package with the C libraries of an architecture
 *   tarball      userdma-VERSION-linux-ARCH.tar.xz, which needs no Node.js
 *   deb          userdma_VERSION_ARCH.deb for Debian 12 and 13, which needs no Node.js
 *   image        userdma-VERSION-oci.tar, a container image for the architectures
 *
 * Without names: all. What this machine lacks the tools for is left out, with a line that says how to get them; with
 * --all, and for packages and architectures that are named, that is a failure before anything is made. The checkout
 * must be built (`npm run package` builds it first). Modules in scripts/package/.
 */
import { mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { findProgram, inRoot, main, StepError, say } from './common.mjs'
import { makeDeb, makeTarball } from './package/archives.mjs'
import { openAside } from './package/aside.mjs'
import { makeImage, toolsForImage } from './package/image.mjs'
import { ARCHITECTURES, compileNative, missingForNative } from './package/native.mjs'
import { packMain, packPlatform } from './package/npm.mjs'
import { withProgress } from './package/progress.mjs'

/** Debian packages of programs that are missing. `tools`: packages by program. */
const missing = tools => Object.keys(tools).flatMap(name => (findProgram(name) ? [] : [tools[name]]))

/** A maker of one file for each architecture. `tools`: what it needs beside the compiler. */
const perArchitecture = (make, tools = {}) => ({
  missing: arch => [...missingForNative(arch), ...missing(tools)],
  files: architectures => architectures.map(arch => [arch]),
  make: async ([arch], { libraries, work, output }) => make(arch, await libraries(arch), work, output),
})

/**
 * By the names of packages. `missing`: Debian packages that are missing to make it for an architecture; `files`: the
 * architectures of each file; `make` makes one, and returns its path.
 */
const MAKERS = {
  npm: {
    missing: () => [],
    files: () => [[]],
    make: (_, { work, output }) => packMain(work, output),
  },
  platform: perArchitecture(packPlatform),
  tarball: perArchitecture(makeTarball, { xz: 'xz-utils' }),
  deb: perArchitecture(makeDeb, { 'dpkg-deb': 'dpkg' }),
  image: {
    missing: arch => [...missingForNative(arch), ...missing(toolsForImage(arch))],
    files: architectures => (architectures.length > 0 ? [architectures] : []),
    make: (architectures, { libraries, work, output }) => makeImage(architectures, libraries, work, output),
  },
}

/** parseArgs; throws StepError for an unknown option. */
const parsedArgs = config => {
  try {
    return parseArgs(config)
  } catch (error) {
    throw new StepError(`package: ${error.message}`)
  }
}

/** The values of the command line. Throws StepError. */
const optionsOf = args => {
  const options = { arch: { type: 'string' }, all: { type: 'boolean' }, output: { type: 'string' } }
  const { values, positionals } = parsedArgs({ args, options, allowPositionals: true })
  const architectures = values.arch?.split(',') ?? Object.keys(ARCHITECTURES)
  const unknown = [
    ...positionals.filter(name => !Object.hasOwn(MAKERS, name)),
    ...architectures.filter(arch => !Object.hasOwn(ARCHITECTURES, arch)),
  ]
  if (unknown.length > 0)
    throw new StepError(
      `package: unknown: ${unknown.join(' ')}; packages are ${Object.keys(MAKERS).join(', ')}, architectures ${Object.keys(ARCHITECTURES).join(', ')}`,
    )
  if (values.all && (positionals.length > 0 || values.arch !== undefined))
    throw new StepError('package: --all is every package for every architecture; leave out the names, or --all')
  return {
    names: positionals.length > 0 ? positionals : Object.keys(MAKERS),
    architectures,
    output: resolve(values.output ?? inRoot('packages')),
    isNamed: positionals.length > 0,
    isArchNamed: values.arch !== undefined,
    isAll: values.all === true,
  }
}

/** The files to make. Says what is left out and how to get it. Throws StepError for what the command line wants. */
const filesOf = ({ names, architectures, isNamed, isArchNamed, isAll }) => {
  const parts = names.flatMap(name => architectures.map(arch => ({ name, arch, missing: MAKERS[name].missing(arch) })))
  const leftOut = parts.filter(({ missing }) => missing.length > 0)
  if (leftOut.length > 0) {
    const lack = [...new Set(leftOut.flatMap(({ missing }) => missing))].join(' ')
    const what = architectures
      .map(arch => [arch, leftOut.filter(part => part.arch === arch).map(({ name }) => name)])
      .filter(([, lacking]) => lacking.length > 0)
      .map(([arch, lacking]) => `${lacking.join(', ')} for ${arch}`)
      .join('; ')
    const remedy = `install Debian's packages first: sudo apt-get install ${lack}`
    const isWanted = ({ name, arch }) =>
      isAll || (isArchNamed ? isNamed || name !== 'image' : isNamed && arch === process.arch)
    if (leftOut.some(isWanted)) throw new StepError(`package: cannot make ${what}; ${remedy}`)
    say(`left out: ${what}; to have them, ${remedy}`)
  }
  const isPossible = (name, arch) => !leftOut.some(part => part.name === name && part.arch === arch)
  const files = names.flatMap(name =>
    MAKERS[name].files(architectures.filter(arch => isPossible(name, arch))).map(of => ({ name, architectures: of })),
  )
  // This machine's first: they are there soonest.
  const isOthers = file => file.architectures.some(arch => arch !== process.arch)
  return files.sort((a, b) => isOthers(a) - isOthers(b))
}

main(async args => {
  const options = optionsOf(args)
  const files = filesOf(options)
  // What npm, tar and dpkg-deb store of modes must not depend on the umask.
  process.umask(0o022)
  mkdirSync(options.output, { recursive: true })
  const aside = openAside(options.output)
  const work = mkdtempSync(join(tmpdir(), 'userdma-package-'))
  const compiled = new Map()
  const libraries = arch => {
    if (!compiled.has(arch)) compiled.set(arch, compileNative(arch, join(work, `native-${arch}`)))
    return compiled.get(arch)
  }
  let failed = 0
  try {
    for (const [i, { name, architectures }] of files.entries()) {
      const what = [name, ...architectures].join(' ')
      const job = { libraries, work: mkdtempSync(join(work, `${name}-`)), output: aside.folder }
      try {
        const text = `package: ${what}, ${i + 1} of ${files.length}`
        const file = aside.finish(await withProgress(text, () => MAKERS[name].make(architectures, job)))
        say(`${file}: ${(statSync(file).size / 1e6).toFixed(1)} MB`)
      } catch (error) {
        if (!(error instanceof StepError)) throw error
        // The others may work: an image needs a mirror.
        failed++
        say(`package: ${what}: ${error.message}`)
      }
    }
  } finally {
    aside.close()
    rmSync(work, { recursive: true, force: true })
  }
  return failed > 0 ? 1 : 0
})
