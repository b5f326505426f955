/*
 * Answers RDMA_NLDEV requests (Linux: rdma_nl_rcv_msg): checks permissions, parses attributes, runs the handler, and
 * sends answers, acknowledgements and lists.
 */
import { SystemError } from '../../host/errno.ts'
import { CallError, callError, Errno } from '../../spec/errno.ts'
import {
  NetlinkOption,
  type NldevCommand,
  type NldevCommandName,
  NldevCommands,
  NlmsgFlags,
  NlmsgType,
  nldevType,
} from '../../spec/linux/nldev.ts'
import { type Attributes, type Entries, encodeAttributes, readAttributes } from '../../uapi/nldev/attributes.ts'
import { type Message, writeAcknowledgement, writeDone, writeMessage } from '../../uapi/nldev/messages.ts'
import type { Containment } from '../containment.ts'
import type { Answers, Managed, ParsedRequest, Work } from './answers.ts'
import { changeAnswers } from './changes.ts'
import { deviceAnswers } from './devices.ts'
import type { AnswerMessage, NamespaceOfFd } from './netlink.ts'
import type { Datagrams, NetlinkSocket } from './netlink-socket.ts'
import { resourceAnswers } from './resources.ts'
import { statisticAnswers } from './statistics.ts'

const answers: Answers = { ...deviceAnswers, ...resourceAnswers, ...statisticAnswers, ...changeAnswers }

const commands = new Map<number, { readonly name: NldevCommandName } & NldevCommand>(
  Object.entries(NldevCommands).map(([name, command]) => [
    nldevType(command.number),
    { name: name as NldevCommandName, ...command },
  ]),
)

/** The attributes of a request are malformed. */
class MalformedError extends CallError {}

type RequestSender = Omit<ParsedRequest, 'attributes'>

const { CAP_ACK, EXT_ACK } = NetlinkOption

/** `rootOf`: the folder of the files for a network namespace. */
export const createRequests = (
  daemon: Managed,
  { report }: Pick<Containment, 'report'>,
  rootOf: (namespace: string | undefined) => string = () => daemon.root,
): AnswerMessage => {
  /** The daemon as a network namespace sees it. */
  const seenFrom = (namespace: string | undefined): Managed => {
    const devices = daemon.namespaces.devicesOf(namespace)
    return devices === daemon.devices ? daemon : { ...daemon, devices, root: rootOf(namespace) }
  }

  /** Acknowledges or, with `errno`, refuses. Tools print `reason`. */
  const acknowledge = (socket: NetlinkSocket, message: Message, errno = 0, reason?: string): void =>
    socket.send(
      writeAcknowledgement(message, socket.port, {
        errno,
        reason: socket.options.has(EXT_ACK) ? reason : undefined,
        isCapped: socket.options.has(CAP_ACK),
      }),
    )

  /**
   * As in Linux, refusals of malformed attributes have a message, and those of other queries have none. Refusals of
   * commands that need CAP_NET_ADMIN always have one; in Linux only some of them (rdma_counter_set_auto_mode).
   */
  const refuse = (socket: NetlinkSocket, message: Message, error: unknown): void => {
    const isExpected = error instanceof CallError || error instanceof SystemError
    if (!isExpected) report('a request of netlink', error)
    const hasReason = error instanceof MalformedError || commands.get(message.type)?.needsNetAdmin === true
    acknowledge(
      socket,
      message,
      isExpected ? error.errno : Errno.EIO,
      isExpected && hasReason ? error.message : undefined,
    )
  }

  const encodeAnswer = (
    socket: NetlinkSocket,
    { type, sequence }: Message,
    flags: number,
    body: Uint8Array,
  ): Uint8Array => writeMessage({ type, flags, sequence, port: socket.port, body })

  const attributesOf = ({ isStrict, returnsParserErrno }: NldevCommand, { body }: Message): Attributes => {
    try {
      return readAttributes(body, isStrict === true)
    } catch (error) {
      if (!(error instanceof CallError)) throw error
      throw new MalformedError(returnsParserErrno && error.code === 'ERANGE' ? 'ERANGE' : 'EINVAL', error.message)
    }
  }
  const parsedOf = (command: NldevCommand, message: Message, sender: RequestSender): ParsedRequest => ({
    attributes: attributesOf(command, message),
    ...sender,
  })
  const parsedListOf = (command: NldevCommand, message: Message, sender: RequestSender): ParsedRequest =>
    command.listIgnoresAttributes ? { attributes: {}, ...sender } : parsedOf(command, message, sender)

  /** A list as datagrams. The last datagram is NLMSG_DONE with 0, or with the errno of a failure. */
  function* datagramsOf(
    socket: NetlinkSocket,
    message: Message,
    list: () => Generator<Uint8Array | undefined>,
  ): Datagrams {
    let errno = 0
    try {
      for (const body of list()) yield body && encodeAnswer(socket, message, NlmsgFlags.MULTI, body)
    } catch (error) {
      if (!(error instanceof CallError)) report('a list of netlink', error)
      errno = error instanceof CallError ? error.errno : Errno.EIO
    }
    yield writeDone(message, socket.port, errno)
  }

  /**
   * Sends the answer to a request without NLM_F_DUMP, with the number that the command's replies have, and an
   * acknowledgement if it is requested.
   */
  const answerOne = (socket: NetlinkSocket, message: Message, entries: Entries | undefined): void => {
    const { replyNumber } = commands.get(message.type) ?? {}
    const answered = replyNumber === undefined ? message : { ...message, type: nldevType(replyNumber) }
    if (entries !== undefined) socket.send(encodeAnswer(socket, answered, 0, encodeAttributes(entries)))
    if (message.flags & NlmsgFlags.ACK) acknowledge(socket, message)
  }

  /** Runs the first step now, which suffices for devices with few objects, and the others in slices. */
  const runToEnd = (
    socket: NetlinkSocket,
    message: Message,
    work: Work<Entries | undefined>,
  ): Promise<void> | undefined => {
    const { done, value } = work.next()
    if (done) {
      answerOne(socket, message, value)
      return undefined
    }
    return socket.time.run(work).then(
      entries => answerOne(socket, message, entries),
      error => refuse(socket, message, error),
    )
  }

  /** Runs the handler of a request. Throws CallError to refuse. */
  const handle = (
    socket: NetlinkSocket,
    message: Message,
    isAdmin: boolean,
    namespaceOfFd: NamespaceOfFd,
  ): Promise<void> | undefined => {
    const command = commands.get(message.type)
    const handlers = command && answers[command.name]
    if (command === undefined || handlers === undefined)
      throw callError.EINVAL`there is no request of type 0x${message.type.toString(16)}`
    const { name } = command
    if (command.needsNetAdmin && !isAdmin) throw callError.EPERM`${name} is allowed for the user of this daemon only`
    const { list, one } = handlers
    const { namespace } = socket
    const sender: RequestSender = { isAdmin, namespace, namespaceOfFd }
    if (message.flags & NlmsgFlags.DUMP) {
      if (list === undefined) throw callError.EINVAL`${name} does not support NLM_F_DUMP`
      if (socket.isListing) throw callError.EBUSY`a list is in progress on this socket: read it to its end`
      socket.sendList(
        datagramsOf(socket, message, () => list(seenFrom(namespace), parsedListOf(command, message, sender))),
      )
      return undefined
    }
    if (one === undefined) throw callError.EINVAL`${name} requires NLM_F_DUMP`
    const answer = one(seenFrom(namespace), parsedOf(command, message, sender))
    if (answer !== undefined && 'next' in answer) return runToEnd(socket, message, answer)
    answerOne(socket, message, answer)
    return undefined
  }

  return (socket, message, isAdmin, namespaceOfFd) => {
    const { type, flags } = message
    if (!(flags & NlmsgFlags.REQUEST) || type < NlmsgType.FIRST) {
      if (flags & NlmsgFlags.ACK) acknowledge(socket, message)
      return undefined
    }
    try {
      return handle(socket, message, isAdmin, namespaceOfFd)
    } catch (error) {
      refuse(socket, message, error)
      return undefined
    }
  }
}
