/*
 * The address of `--listen`, where a command serves browsers or scrapers.
 */
import { UsageError } from './fail.ts'

/** ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT; by default a free port of 127.0.0.1. */
export const listenAddress = (text: string | undefined): { readonly host: string; readonly port: number } => {
  if (text === undefined) return { host: '127.0.0.1', port: 0 }
  const [, bracketed, plain, portText = '0'] =
    /^(?:\[([\da-f:.]+)\]|([\d.]+|[\da-f:]*:[\da-f:.]*:[\da-f:.]*))(?::(\d{1,5}))?$/i.exec(text) ?? []
  const host = bracketed ?? plain
  const port = Number(portText)
  if (host === undefined || port > 65_535)
    throw new UsageError(`--listen "${text}": give an address, such as 127.0.0.1, 127.0.0.1:8080 or [::1]:8080`)
  return { host, port }
}
