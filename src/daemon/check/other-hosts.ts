/*
 * What the checkers of a net (net-daemons.ts) tell each other of the ends of connections and the threads of programs.
 */
import type { Context } from '../../core/model.ts'
import { type PeerFacts, type PeerQuestion, peerFactsText } from '../../spec/check/peer-facts.ts'
import type { GraphProcess } from '../../spec/check/thread-waits.ts'
import { parseAddressText } from '../../transport/wire/address.ts'
import type { Containment } from '../containment.ts'
import { type Devices, devicesWith } from '../devices/devices.ts'
import type { CheckerDoor } from './door.ts'
import { NetDaemons } from './net-daemons.ts'

/** Microseconds since 1970 at time 0 of `nowMicroseconds`. */
export const CLOCK = performance.timeOrigin * 1000
/** Questions to other hosts at a time. */
const MAX_QUESTIONS = 1024
/** Contexts that wait of which other hosts are asked at a time. */
const MAX_ASKED = 16

export class OtherHosts {
  readonly #containment: Containment
  /** Undefined: the daemon is of no net. */
  #net: NetDaemons | undefined
  readonly #asked = new Set<Promise<void>>()
  /** Their processes, at the last look. */
  processes: readonly GraphProcess[] = []

  constructor(containment: Containment) {
    this.#containment = containment
  }

  /** The socket of the daemon, which may be that of a host of a net. */
  joinNet(socket: string): void {
    this.#net = NetDaemons.of(socket)
  }

  /** Connects with the other hosts, so that they answer at once. */
  connect(): void {
    this.#net?.connect()
  }

  /** The name of this host. */
  get ownName(): string | undefined {
    return this.#net?.host
  }

  /** Resolves when the other hosts have answered what they were asked so far, or did not in time. */
  async untilAnswered(): Promise<void> {
    while (this.#asked.size > 0) await Promise.all(this.#asked)
  }

  #awaited<T>(answer: Promise<T>, take: (answer: T) => void): void {
    const taken: Promise<void> = answer
      .then(this.#containment.guard('an answer of another host', take))
      .finally(() => this.#asked.delete(taken))
    this.#asked.add(taken)
  }

  /** As `askPeer` of the checker's sources. */
  ask(question: PeerQuestion, answered: (host: string | undefined, facts: PeerFacts | undefined) => void): boolean {
    if (this.#net === undefined || this.#asked.size >= MAX_QUESTIONS) return false
    this.#awaited(this.#net.peer(question), found => answered(found?.host, found?.facts))
    return true
  }

  /** Asks about the connections of programs that wait: the answers are there when it is reported. */
  askAbout(waiting: readonly Context[], door: CheckerDoor): void {
    const net = this.#net
    if (net === undefined || this.#asked.size > 0) return
    const contexts = [...new Set(waiting.map(({ id }) => id))].slice(0, MAX_ASKED)
    const questions = contexts.flatMap(context => door.known.peerQuestions(context))
    if (questions.length === 0) return
    for (const question of questions)
      this.#awaited(net.peer(question), answer => {
        if (answer !== undefined) door.known.addPeer(question, answer.host, answer.facts)
      })
    this.#awaited(net.processes(), processes => {
      this.processes = processes
    })
  }
}

/** The text of `PeerFacts`, for another host; undefined: no device has the address. */
export const peerText = (
  devices: Pick<Devices, 'all'>,
  door: CheckerDoor,
  { address, qpn, time }: PeerQuestion,
): string | undefined => {
  const gid = parseAddressText(address)
  const [found] = gid === undefined ? [] : devicesWith(devices, gid)
  if (found === undefined) return undefined
  door.scan()
  const { device, network } = found
  const object = network?.queues?.qpOfNumber(qpn)
  const state = object && network?.queues?.qp(object)?.state
  const facts = door.known.peerFacts(device.index, qpn, time - CLOCK, state)
  return peerFactsText({ device: device.name, clock: CLOCK, ...facts })
}
