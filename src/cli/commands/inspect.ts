/*
 * `userdma inspect`: serves a page that shows a session file.
 */
import { join } from 'node:path'
import { openFile } from '../../inspect/file.ts'
import { readPage } from '../../inspect/page.ts'
import { servePage } from '../../inspect/server.ts'
import { onEndSignal } from '../end-signals.ts'
import { UsageError } from '../fail.ts'
import { packageRoot } from '../paths.ts'

/** As commander parses them. */
export interface InspectOptions {
  readonly listen?: string
}

/** ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT; by default a free port of 127.0.0.1. */
const listenAddress = (text: string | undefined): { readonly host: string; readonly port: number } => {
  if (text === undefined) return { host: '127.0.0.1', port: 0 }
  const [, bracketed, plain, portText = '0'] =
    /^(?:\[([\da-f:.]+)\]|([\d.]+|[\da-f:]*:[\da-f:.]*:[\da-f:.]*))(?::(\d{1,5}))?$/i.exec(text) ?? []
  const host = bracketed ?? plain
  const port = Number(portText)
  if (host === undefined || port > 65_535)
    throw new UsageError(`--listen "${text}": give an address, such as 127.0.0.1, 127.0.0.1:8080 or [::1]:8080`)
  return { host, port }
}

export const pageFolder = join(packageRoot, 'dist', 'page')

/** The command. */
export const inspect = async (file: string, options: InspectOptions): Promise<void> => {
  const address = listenAddress(options.listen)
  const page = readPage(pageFolder)
  const opened = await openFile(file)
  const server = await servePage(page, opened.data, address)
  process.stdout.write(`userdma inspect: open this link, which works once: ${server.link()}\n`)
  await new Promise<void>(resolve => onEndSignal(() => resolve()))
  await server.close()
  await opened.close()
}
