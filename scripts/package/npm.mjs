/*
 * The npm packages: userdma, and per platform one package with the C libraries, so nothing is compiled or run when
 * userdma is installed. userdma does not name them as dependencies: while nothing is published, whoever takes the names
 * on a registry would be installed.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import { bundleProgram } from '../bundle.mjs'
import { filesBelow, inRoot, StepError } from '../common.mjs'
import { pagePackages } from './foreign.mjs'
import { helpFiles, imagesOf } from './pages.mjs'
import { SBOM, sbomOf } from './sbom.mjs'

export const manifest = JSON.parse(readFileSync(inRoot('package.json'), 'utf8'))

const platformPackage = arch => `${manifest.name}-linux-${arch}`

const writeManifest = (folder, fields) =>
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(fields, null, 2)}\n`)

/** Packs `folder` into `output` with npm, whose archives depend only on names, modes and bytes. Throws StepError. */
const pack = (folder, output) => {
  const args = ['pack', '--ignore-scripts', '--json', '--pack-destination', output]
  const { status, stdout, stderr } = spawnSync('npm', args, { cwd: folder, encoding: 'utf8', maxBuffer: 1 << 26 })
  if (status !== 0) throw new StepError(`npm pack failed: ${stderr}`)
  return join(output, JSON.parse(stdout)[0].filename)
}

/** What the package userdma has of a checkout, beside pages, types and the program. */
const PARTS = [
  ...['bin', 'browser', 'deploy', 'dist/lib', 'dist/page', 'examples', 'native', 'shim'],
  ...['build-native.mjs', 'bundled.json', 'common.mjs', 'compile.mjs', 'native-targets.mjs'].map(
    name => `scripts/${name}`,
  ),
  ...['README.md', 'ARCHITECTURE.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'LICENSE'],
]

/** Folders of types: in a checkout all, in the package those that its entry points need. */
const COMPILED = './dist/src/'
const TYPES = './dist/types/'

/** Paths of the files with types of the entry points, of what they import, and so on. */
export const publicTypes = () => {
  const reached = new Set(Object.values(manifest.exports).flatMap(({ types }) => (types ? [inRoot(types)] : [])))
  // A set iterates over what is added meanwhile.
  for (const path of reached)
    for (const [, specifier] of readFileSync(path, 'utf8').matchAll(/(?:from |import\()['"](\.[^'"]+)\.[jt]s['"]/g))
      reached.add(join(dirname(path), `${specifier}.d.ts`))
  return [...reached]
}

/** Copies the types of the entry points `exports`, and returns the entry points as the package has them. */
const stageTypes = (folder, exports) => {
  for (const path of publicTypes()) cpSync(path, join(folder, TYPES, relative(inRoot(COMPILED), path)))
  return JSON.parse(JSON.stringify(exports).replaceAll(COMPILED, TYPES))
}

/** Copies examples that run, without the names of source maps, which the package does not have. */
const stageExamples = folder => {
  for (const path of filesBelow(inRoot('dist', 'examples'), file => file.endsWith('.js'))) {
    const code = readFileSync(path, 'utf8').replace(/^\/\/# sourceMappingURL=\S+\.map\n?$/m, '')
    mkdirSync(join(folder, 'dist', 'examples'), { recursive: true })
    writeFileSync(join(folder, 'dist', 'examples', basename(path)), code)
  }
}

/** Copies what the package userdma has, its manifest included, into a new folder. */
const stageMain = async folder => {
  mkdirSync(folder, { recursive: true })
  for (const name of PARTS) cpSync(inRoot(name), join(folder, name), { recursive: true })
  const pages = helpFiles()
  for (const path of [...pages, ...imagesOf(pages)]) cpSync(path, join(folder, relative(inRoot(), path)))
  stageExamples(folder)
  await bundleProgram(join(folder, 'dist', 'program'))
  const { scripts: _, devDependencies: __, ...fields } = manifest
  const bundled = pagePackages()
  for (const { name } of bundled)
    cpSync(inRoot('node_modules', name, 'LICENSE'), join(folder, 'licenses', name, 'LICENSE'))
  writeFileSync(join(folder, SBOM), sbomOf(fields, bundled))
  writeManifest(folder, { ...fields, exports: stageTypes(folder, fields.exports) })
}

/** Makes the package userdma in the folder `output`; returns its path. `work`: an empty folder. */
export const packMain = async (work, output) => {
  const folder = join(work, manifest.name)
  await stageMain(folder)
  return pack(folder, output)
}

/**
 * Makes the package of a platform in `output` from the compiled libraries; returns its path. `work`: an empty folder.
 */
export const packPlatform = (arch, libraries, work, output) => {
  const name = platformPackage(arch)
  const folder = join(work, name)
  mkdirSync(folder, { recursive: true })
  for (const path of libraries) cpSync(path, join(folder, basename(path)))
  cpSync(inRoot('LICENSE'), join(folder, 'LICENSE'))
  writeFileSync(
    join(folder, 'README.md'),
    `# ${name}\n\nThe C libraries of the package userdma for Linux on ${arch}, with glibc 2.28 or newer.\n`,
  )
  const { version, license, repository } = manifest
  writeFileSync(join(folder, SBOM), sbomOf({ name, version, license }, []))
  writeManifest(folder, {
    name,
    version,
    description: `The C libraries of userdma for Linux on ${arch}`,
    license,
    repository,
    os: ['linux'],
    cpu: [arch],
    libc: ['glibc'],
    // koffi's native part, which userdma loads without koffi: it is complete although npm omits optional packages.
    dependencies: { [`@koromix/koffi-linux-${arch}`]: manifest.optionalDependencies.koffi },
    // A preload library must be a file; Yarn would leave it in an archive.
    preferUnplugged: true,
    files: [...libraries.map(path => basename(path)), SBOM],
  })
  return pack(folder, output)
}
