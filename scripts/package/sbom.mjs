/*
 * The software bill of materials of a package, as CycloneDX 1.5 in JSON: what is shipped, with versions, licences and
 * hashes.
 */

const encode = name => name.replace('@', '%40')

/** `integrity`: as in a lock file of npm; omitted for our own package. */
const component = (type, { name, version, license, integrity }) => ({
  type,
  'bom-ref': `pkg:npm/${encode(name)}@${version}`,
  name,
  version,
  licenses: [{ license: { id: license } }],
  purl: `pkg:npm/${encode(name)}@${version}`,
  ...(integrity && {
    hashes: [{ alg: 'SHA-512', content: Buffer.from(integrity.replace('sha512-', ''), 'base64').toString('hex') }],
  }),
})

/** The text of the file. `own`: the package; `shipped`: foreign packages whose files it contains. */
export const sbomOf = (own, shipped) => {
  const bom = {
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    version: 1,
    metadata: { component: component('application', own) },
    components: shipped.map(foreign =>
      component(foreign.name.startsWith('node-') ? 'application' : 'library', foreign),
    ),
  }
  return `${JSON.stringify(bom, null, 2)}\n`
}

/** The file's name, by which tools know the format. */
export const SBOM = 'sbom.cdx.json'
