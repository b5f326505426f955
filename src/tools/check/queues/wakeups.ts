/*
 * Findings about events of CQs: CQs that are never armed (ibv_req_notify_cq), or armed with unpolled completions.
 */
import { counted } from '../../../base/text.ts'
import type { Stack } from '../../../spec/check/finding.ts'
import type { RequestCompletion } from '../../../spec/check/requests.ts'
import { WcStatus } from '../../../spec/work.ts'
import { ADVICE_FOR_SOLICITED } from '../advice.ts'
import type { DetectorServices } from '../detector.ts'
import type { KnownObject } from '../objects.ts'
import type { UnpolledCompletion, UnpolledCompletions } from './unpolled.ts'

/** A program that has not polled a non-empty CQ for this time is taken to wait for the CQ's event. */
export const WAITING_MICROSECONDS = 1_000_000

const { SUCCESS } = WcStatus.values
/** The bit of ibv_wc_opcode that all receives have. */
const RECEIVED = 1 << 7

interface CqEvents {
  /**
   * The call that armed the CQ with unpolled completions. Undefined after a completion, a call, or a poll of the last
   * of them. `time`: of the call or of the last poll. `wasPolled`: some of the completions were polled.
   */
  armingCall: { readonly time: number; readonly stack: Stack; readonly wasPolled: boolean } | undefined
  /** The stack of the last call that armed the CQ. */
  lastArming: Stack | undefined
  /**
   * When the first successful completion came, in microseconds; infinite: none came. Undefined: the program has armed
   * or polled the CQ, or has given it no channel.
   */
  unnoticedSince: number | undefined
  /** Whether the last call that armed the CQ was for solicited completions only. */
  isForSolicitedOnly: boolean
  /** Whether a solicited message has ever come: then the sender sets the flag in some of its messages. */
  hasSolicited: boolean
  /**
   * When the first message that is not solicited came to a CQ that is armed for solicited completions only, in
   * microseconds. Undefined: none came, or the program has armed or polled the CQ since.
   */
  notSolicitedSince: number | undefined
}

/** Whether the program has given the CQ a channel. The TypeScript library uses its own channel, and arms the CQ. */
const hasChannel = (cq: KnownObject | undefined): boolean => cq?.uses.has('channel') === true && !cq.isOfLibrary

export class Wakeups {
  readonly #services: DetectorServices
  readonly #unpolled: UnpolledCompletions
  /** By `KnownObject.id` of the CQ. */
  readonly #cqs = new Map<number, CqEvents>()

  constructor(services: DetectorServices, unpolled: UnpolledCompletions) {
    this.#services = services
    this.#unpolled = unpolled
  }

  #of(cq: number): CqEvents {
    let events = this.#cqs.get(cq)
    if (events === undefined) {
      events = {
        armingCall: undefined,
        lastArming: undefined,
        unnoticedSince: Number.POSITIVE_INFINITY,
        isForSolicitedOnly: false,
        hasSolicited: false,
        notSolicitedSince: undefined,
      }
      this.#cqs.set(cq, events)
    }
    return events
  }

  /** A completion is about to be added to a CQ. */
  completing({ cq: id, status, opcode, solicited, wasArmed }: RequestCompletion): void {
    const events = this.#of(id)
    const isSuccess = status === SUCCESS
    if (isSuccess && (opcode & RECEIVED) !== 0) {
      if (solicited) events.hasSolicited = true
      else if (events.isForSolicitedOnly) events.notSolicitedSince ??= this.#services.sources.now()
    }
    if (events.armingCall !== undefined) {
      this.#checkArmed(this.#services.objects.find(id), events, false)
      // This completion raises an event.
      events.armingCall = undefined
    }
    if (events.unnoticedSince === Number.POSITIVE_INFINITY && isSuccess && !wasArmed)
      events.unnoticedSince = hasChannel(this.#services.objects.find(id)) ? this.#services.sources.now() : undefined
  }

  /** The program has polled completions of a CQ; those are removed from `UnpolledCompletions`. */
  polled(id: number): void {
    const events = this.#of(id)
    events.unnoticedSince = undefined
    events.notSolicitedSince = undefined
    const { armingCall } = events
    if (armingCall === undefined) return
    events.armingCall = this.#unpolled.has(id)
      ? { ...armingCall, time: this.#services.sources.now(), wasPolled: true }
      : undefined
  }

  /** A call on a CQ begins. */
  calling(cq: KnownObject): void {
    this.#checkArmed(cq, this.#of(cq.id), false)
  }

  armed(cq: KnownObject, isForSolicitedOnly: boolean, stack: Stack): void {
    const events = this.#of(cq.id)
    events.unnoticedSince = undefined
    events.notSolicitedSince = undefined
    events.isForSolicitedOnly = isForSolicitedOnly
    events.lastArming = stack
    // A program that arms for solicited completions waits for no other ones.
    const isAwaited = ({ completion }: UnpolledCompletion): boolean => !isForSolicitedOnly || completion.solicited
    if (this.#unpolled.of(cq).some(isAwaited))
      events.armingCall = { time: this.#services.sources.now(), stack, wasPolled: false }
  }

  /**
   * Called at a completion to a CQ and at a call on the CQ. Reports if the CQ was armed with completions in it, and not
   * polled for WAITING_MICROSECONDS. A CQ that was polled in part is reported only when it is destroyed (`isEnd`),
   * because a program may take long for each completion.
   */
  #checkArmed(cq: KnownObject | undefined, events: CqEvents, isEnd: boolean): void {
    const { armingCall } = events
    if (armingCall?.wasPolled && !isEnd) return
    events.armingCall = undefined
    if (armingCall === undefined || cq === undefined) return
    if (this.#services.sources.now() - armingCall.time < WAITING_MICROSECONDS) return
    const completions = counted(this.#unpolled.of(cq).length, 'unpolled completion')
    const text = armingCall.wasPolled
      ? `${cq.name} was armed and then polled in part: ${completions} are left in it, which raise no event`
      : `${cq.name} was armed with ${completions} in it, and was not polled afterwards`
    this.#services.report('lost-wakeup', this.#services.occurrenceAt(cq, armingCall.stack), { text, objects: [cq] })
  }

  /**
   * A CQ was destroyed: reports if it was armed in vain, or neither armed nor polled and had a completion for a second.
   */
  destroyed(cq: KnownObject): void {
    const events = this.#cqs.get(cq.id)
    this.#cqs.delete(cq.id)
    if (events === undefined) return
    this.#checkArmed(cq, events, true)
    this.#checkSolicited(cq, events)
    const unpolled = this.#unpolled.of(cq).length
    if (events.unnoticedSince === undefined || unpolled === 0) return
    if (this.#services.sources.now() - events.unnoticedSince < WAITING_MICROSECONDS) return
    const text = `${cq.name} was never armed (ibv_req_notify_cq) nor polled, so its channel had no event for ${counted(unpolled, 'completion')} in it`
    const { stack, action } = cq.creation
    this.#services.report('lost-wakeup', this.#services.occurrenceAt(cq, stack, action), { text, objects: [cq] })
  }

  /** Reports if the CQ was armed for solicited completions only, and only messages without IBV_SEND_SOLICITED came. */
  #checkSolicited(cq: KnownObject, { notSolicitedSince, hasSolicited, lastArming = [] }: CqEvents): void {
    if (notSolicitedSince === undefined || hasSolicited || !hasChannel(cq)) return
    const services = this.#services
    if (services.sources.now() - notSolicitedSince < WAITING_MICROSECONDS) return
    const unpolled = this.#unpolled.of(cq)
    const message = unpolled.find(({ completion }) => completion.message !== undefined)?.completion.message
    const sender = message && services.objects.find(message.owner)
    const count = unpolled.length
    const text = `${cq.name} was armed for solicited completions only (solicited_only of ibv_req_notify_cq), and ${counted(count, 'completion')} came that ${count === 1 ? 'is' : 'are'} not solicited: the sender${sender ? `, ${sender.nameWithProgram},` : ''} sets no IBV_SEND_SOLICITED`
    services.report('lost-wakeup', services.occurrenceAt(cq, lastArming, 'armed'), {
      text,
      advice: ADVICE_FOR_SOLICITED,
      ...(message && { moments: [services.postMoment(message, 'posted by the sender')] }),
      objects: [cq, sender],
    })
  }

  /** A finding says that the program waits for an event of this CQ. Returns the stack of its last arming, if any. */
  reportsWait(cq: number): Stack | undefined {
    const events = this.#of(cq)
    events.armingCall = undefined
    events.unnoticedSince = undefined
    events.notSolicitedSince = undefined
    return events.lastArming
  }
}
