/*
 * Writes an archive with an image for several platforms in the image layout of the Open Container Initiative
 * (image-spec 1.1): files named by their SHA-256, below an index. Skopeo and Podman read it.
 */
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { runTool, writeTar } from './tools.mjs'

const TYPES = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar+gzip',
}

const digestOf = bytes => `sha256:${createHash('sha256').update(bytes).digest('hex')}`

/** Stores bytes in the layout; returns their descriptor. */
const storeBlob = (layout, mediaType, bytes) => {
  const digest = digestOf(bytes)
  writeFileSync(join(layout, 'blobs', ...digest.split(':')), bytes)
  return { mediaType, digest, size: bytes.length }
}

const storeJson = (layout, mediaType, value) => storeBlob(layout, mediaType, Buffer.from(JSON.stringify(value)))

/** Compresses a layer in place: the bytes of Node's zlib would depend on its version. */
const storeLayer = (layout, { path, createdBy }) => {
  const diffId = digestOf(readFileSync(path))
  runTool('gzip', ['-n', path])
  return { diffId, createdBy, descriptor: storeBlob(layout, TYPES.layer, readFileSync(`${path}.gz`)) }
}

/** Stores the image of a platform; returns its descriptor. */
const storeImage = (layout, created, { platform, config, layers }) => {
  const stored = layers.map(layer => storeLayer(layout, layer))
  const configDescriptor = storeJson(layout, TYPES.config, {
    created,
    ...platform,
    config,
    rootfs: { type: 'layers', diff_ids: stored.map(({ diffId }) => diffId) },
    history: stored.map(({ createdBy }) => ({ created, created_by: createdBy })),
  })
  const manifest = {
    schemaVersion: 2,
    mediaType: TYPES.manifest,
    config: configDescriptor,
    layers: stored.map(({ descriptor }) => descriptor),
  }
  return { ...storeJson(layout, TYPES.manifest, manifest), platform }
}

/**
 * Writes the archive `path`. `work`: an empty folder. `name`: the image's name with a tag. `seconds`: its time, since
 * 1970. Each image has `platform` and `config` (as image-spec has them) and `layers`: files `path`, which get
 * compressed, and `createdBy`, from the lowest layer up.
 */
export const writeOciArchive = (path, work, { name, seconds, images }) => {
  const layout = join(work, 'layout')
  mkdirSync(join(layout, 'blobs', 'sha256'), { recursive: true })
  const created = new Date(seconds * 1000).toISOString()
  const manifests = images.map(image => storeImage(layout, created, image))
  const index = storeJson(layout, TYPES.index, { schemaVersion: 2, mediaType: TYPES.index, manifests })
  const annotations = {
    'io.containerd.image.name': name,
    'org.opencontainers.image.ref.name': name.slice(name.indexOf(':') + 1),
  }
  const top = { schemaVersion: 2, mediaType: TYPES.index, manifests: [{ ...index, annotations }] }
  writeFileSync(join(layout, 'index.json'), JSON.stringify(top))
  writeFileSync(join(layout, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
  writeTar(path, layout, ['blobs', 'index.json', 'oci-layout'])
}
