/*
 * The npm packages: userdma, and per platform one package with the C libraries, so nothing is compiled or run when
 * userdma is installed. userdma does not name them as dependencies: while nothing is published, whoever takes the names
 * on a registry would be installed.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { filesBelow, inRoot, StepError } from '../common.mjs'
import { foreignPackages } from './foreign.mjs'
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

/** Removes the names of source maps, which no package has, from the compiled files in a folder. */
export const forgetMaps = folder => {
  for (const path of filesBelow(folder, file => file.endsWith('.js'))) {
    const code = readFileSync(path, 'utf8')
    writeFileSync(path, code.replace(/^\/\/# sourceMappingURL=\S+\.map\n?$/m, ''))
  }
}

/** Copies what the package userdma has, its manifest included, into a new folder. */
export const stageMain = folder => {
  mkdirSync(folder, { recursive: true })
  for (const name of manifest.files)
    if (existsSync(inRoot(name))) cpSync(inRoot(name), join(folder, name), { recursive: true })
  forgetMaps(join(folder, 'dist'))
  const { scripts: _, devDependencies: __, ...fields } = manifest
  const bundled = [foreignPackages(process.arch).commander]
  for (const { name } of bundled)
    cpSync(inRoot('node_modules', name, 'LICENSE'), join(folder, 'licenses', name, 'LICENSE'))
  writeFileSync(join(folder, SBOM), sbomOf(fields, bundled))
  writeManifest(folder, { ...fields, files: [...fields.files, 'licenses', SBOM] })
}

/** Makes the package userdma in the folder `output`; returns its path. `work`: an empty folder. */
export const packMain = (work, output) => {
  const folder = join(work, manifest.name)
  stageMain(folder)
  return pack(folder, output)
}

/** Makes the package of a platform in `output` from the compiled libraries; returns its path. `work`: an empty folder. */
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
