/*
 * Reads a file with a topology: of `userdma net` (net-file.ts) or of `userdma sim` (links-file.ts).
 */
import type { LinkTopology } from '../../transport/phy/links/graph.ts'
import { readInputFile } from './input-file.ts'
import { DEFAULT_LINK } from './link-settings.ts'
import { documentOf, isScenario, MAX_FILE_BYTES, netTopology, readLinks } from './links-file.ts'
import { parseTopology } from './net-file.ts'

/** What a link of the file does not say is as in `NetworkTopology`. Throws InputError. */
export const readTopologyFile = (file: string): LinkTopology => {
  const source = readInputFile(file, 'topology', MAX_FILE_BYTES)
  return isScenario(source)
    ? readLinks(documentOf(source, file, undefined), file)
    : netTopology(parseTopology(source, file), DEFAULT_LINK)
}
