/*
 * The eventfd behind a descriptor of a program, for events that the program wants there (core's `SignalFd`).
 *
 * A write to an eventfd may wait: a program can set its count to the largest value. An event is not counted then, as in
 * Linux. A program may do so between the look and the write, so the writes are made by the threads of libuv, one at a
 * time for each eventfd, and of 1, for which there is room. Descriptors of other users' programs are not taken
 * (host/memory/guest.ts).
 */
import { close, readlinkSync, write } from 'node:fs'
import type { Account, SignalFd } from '../../core/model.ts'
import { orRelease, take } from '../../core/objects/limits.ts'
import { errnoName } from '../../host/errno.ts'
import { isWritable } from '../../host/event-loop/wait.ts'
import { closeElsewhere } from '../../host/memory/mover.ts'
import { type ProcessHandle, pidfdGetfd } from '../../host/memory/process.ts'
import { CallError, callError } from '../../spec/errno.ts'

const EVENTFD = 'anon_inode:[eventfd]'

/** A count. */
const ONE = Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0)

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
    if (!isWritable(this.#fd)) this.#pending = 0
    this.#isWriting = this.#pending > 0
    if (this.#isWriting) {
      this.#pending--
      write(this.#fd, ONE, () => this.#write())
    } else if (this.#isClosed) this.#end()
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
      throw callError.EINVAL`descriptor ${number}: eventfds of programs of another user are not taken`
    throw callError.EBADF`descriptor ${number} of the caller cannot be duplicated: ${code}`
  }
  const closing = (): void => closeFd(fd)
  if (orRelease(closing, () => readlinkSync(`/proc/self/fd/${fd}`)) !== EVENTFD) {
    closeElsewhere(fd, account.payer)
    throw callError.EINVAL`descriptor ${number} is no eventfd`
  }
  return new OpenSignal(
    fd,
    orRelease(closing, () => take(account.descriptors, account, 'an eventfd')),
  )
}
