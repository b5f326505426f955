/*
 * The eventfd behind a descriptor of a program, for events that the program wants there (core's `SignalFd`).
 *
 * A write to an eventfd may wait: a program can set its count to the largest value. So the writes are made by the threads of
 * libuv, one at a time for each eventfd; an event meanwhile is counted with the next one. Descriptors of other users'
 * programs are not taken (host/memory/guest.ts).
 */
import { close, readlinkSync, write } from 'node:fs'
import type { Account, SignalFd } from '../../core/model.ts'
import { orRelease, take } from '../../core/objects/limits.ts'
import { errnoName } from '../../host/errno.ts'
import { type ProcessHandle, pidfdGetfd } from '../../host/memory/process.ts'
import { CallError } from '../../spec/errno.ts'

const EVENTFD = 'anon_inode:[eventfd]'

const closeFd = (fd: number): void => close(fd, () => {})

class OpenSignal implements SignalFd {
  readonly #fd: number
  readonly #release: () => void
  #pending = 0
  #isWriting = false
  #isClosed = false

  constructor(fd: number, release: () => void) {
    this.#fd = fd
    this.#release = release
  }

  signal(): void {
    this.#pending++
    if (!this.#isWriting && !this.#isClosed) this.#write()
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    if (!this.#isWriting) this.#end()
  }

  #write(): void {
    this.#isWriting = true
    const count = Buffer.alloc(8)
    count.writeBigUInt64LE(BigInt(this.#pending))
    this.#pending = 0
    write(this.#fd, count, () => {
      this.#isWriting = false
      if (this.#pending > 0) this.#write()
      else if (this.#isClosed) this.#end()
    })
  }

  #end(): void {
    closeFd(this.#fd)
    this.#release()
  }
}

/** Throws CallError EBADF, EINVAL, EMFILE, ENFILE. */
export const openSignal = (process: ProcessHandle, account: Account, number: number): SignalFd => {
  const fd = pidfdGetfd(process, number | 0)
  if (fd < 0) {
    const code = errnoName(-fd)
    if (code === 'EMFILE' || code === 'ENFILE') throw new CallError(code, 'the daemon has no descriptors left')
    if (process.guest !== undefined && code === 'EINVAL')
      throw new CallError('EINVAL', `descriptor ${number}: eventfds of programs of another user are not taken`)
    throw new CallError('EBADF', `descriptor ${number} of the caller cannot be duplicated: ${code}`)
  }
  const closing = (): void => closeFd(fd)
  if (orRelease(closing, () => readlinkSync(`/proc/self/fd/${fd}`)) !== EVENTFD) {
    closing()
    throw new CallError('EINVAL', `descriptor ${number} is no eventfd`)
  }
  return new OpenSignal(
    fd,
    orRelease(closing, () => take(account.descriptors, account, 'an eventfd')),
  )
}
