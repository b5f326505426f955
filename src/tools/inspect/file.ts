/*
 * A session file as the data of a page.
 */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { SessionFileError } from '../record/error.ts'
import { openSession, type SessionSource } from '../record/reader.ts'
import type { PageData } from './server.ts'

/** Bytes of an open file; fewer at its end. */
export const readAt = async (
  file: Awaited<ReturnType<typeof open>>,
  offset: number,
  length: number,
): Promise<Uint8Array> => {
  const bytes = new Uint8Array(length)
  let at = 0
  while (at < length) {
    const { bytesRead } = await file.read(bytes, at, length - at, offset + at)
    if (bytesRead === 0) break
    at += bytesRead
  }
  return bytes.subarray(0, at)
}

/**
 * Opens a session file. Throws an Error with a sentence if it is none. The file may still be written: its size is that
 * of now.
 */
export const openFile = async (
  path: string,
): Promise<{ readonly data: PageData; readonly source: SessionSource; close(): Promise<void> }> => {
  // A pipe would wait for a writer.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const stat = await file.stat()
    if (!stat.isFile()) throw new SessionFileError('it is not a regular file')
    const { size } = stat
    const source: SessionSource = {
      size,
      read: (offset, length) => readAt(file, offset, Math.max(0, Math.min(length, size - offset))),
    }
    await openSession(source)
    return {
      source,
      data: {
        name: path,
        isLive: false,
        state: () => ({ recording: 1, size, isGrowing: false }),
        read: source.read,
        onChange: () => () => {},
      },
      close: () => file.close(),
    }
  } catch (error) {
    await file.close()
    if (error instanceof SessionFileError) throw new Error(`${path}: ${error.message}`)
    throw error
  }
}
