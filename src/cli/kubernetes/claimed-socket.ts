/*
 * A listening socket at a path that nobody else gets meanwhile: it is bound with a name of its own, and linked to the
 * path, which fails if there is a file. The socket of a process that has ended is replaced; that of one that listens is
 * an error. At the end the path is removed only if it still leads to this socket (host/held-file.ts): Node.js would
 * remove any file there.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, fstatSync, linkSync, rmSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { dirname, join } from 'node:path'
import { holdFile, isAt, removeHeld } from '../../host/held-file.ts'

/** Bytes of a path in struct sockaddr_un, without the NUL. */
const MAX_PATH = 107

export interface ClaimedSocket {
  /** Whether the path leads to this socket. */
  isThere(): boolean
  /** Closes all its connections too. */
  close(): void
}

const isListening = async (path: string): Promise<boolean> => {
  const socket = connect(path)
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

/** Links the bound socket `from` to `path`. Throws an Error if a process listens there. */
const linkTo = async (from: string, path: string): Promise<void> => {
  for (;;)
    try {
      return linkSync(from, path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      let left: number
      try {
        left = holdFile(path)
      } catch {
        continue
      }
      try {
        if (!fstatSync(left).isSocket()) throw new Error(`${path} is no socket; remove it first`)
        if (await isListening(path)) throw new Error(`another process serves ${path}; end it first`)
        removeHeld(path, left)
      } finally {
        closeSync(left)
      }
    }
}

/** Listens at `path`, which must be absolute. Throws an Error. */
export const claimSocket = async (path: string, onConnection: (socket: Socket) => void): Promise<ClaimedSocket> => {
  if (Buffer.byteLength(path) > MAX_PATH)
    throw new Error(`the path of a socket has at most ${MAX_PATH} bytes, and ${path} has ${Buffer.byteLength(path)}`)
  const own = join(dirname(path), `.${randomBytes(6).toString('hex')}`)
  const connections = new Set<Socket>()
  const server = createServer(socket => {
    connections.add(socket)
    socket.once('close', () => connections.delete(socket)).on('error', () => {})
    onConnection(socket)
  })
  server.listen(own)
  await once(server, 'listening')
  // a connection that cannot be accepted, for want of descriptors
  server.on('error', () => {})
  let held: number
  try {
    await linkTo(own, path)
    held = holdFile(own)
  } catch (error) {
    server.close()
    throw error
  }
  rmSync(own, { force: true })
  return {
    isThere: () => isAt(path, held),
    close() {
      removeHeld(path, held)
      closeSync(held)
      server.close()
      for (const socket of connections) socket.destroy()
    },
  }
}
