/*
 * What programs wait for and why, live and from a recording, and how programs have ended: first on the overview, and
 * beside the queue pairs that a wait names.
 */
import { useEffect, useState } from 'preact/hooks'
import { isFindingId, findings as kinds } from '../../src/spec/check/findings.ts'
import type { WaitState } from '../../src/tools/inspect/protocol.ts'
import { programEndText, type SessionWait } from '../../src/tools/record/waits.ts'
import type { Source } from '../data/source.ts'
import type { Store } from '../data/store.ts'
import { countText, durationText, timeText } from '../format.ts'
import { linkTo } from '../route.ts'
import { Prose } from './prose.tsx'

const MAX_ROWS = 60
/** Milliseconds between two requests for what programs wait for. */
const REFRESH = 2000

/** What programs of a daemon wait for now. */
const useWaits = (source: Source): readonly WaitState[] => {
  const [waits, setWaits] = useState<readonly WaitState[]>([])
  useEffect(() => {
    if (!source.about.isLive) return
    // Without an answer, because the daemon has ended, nothing waits.
    const refresh = (): void => void source.waits().then(setWaits, () => setWaits([]))
    refresh()
    const interval = setInterval(refresh, REFRESH)
    return () => clearInterval(interval)
  }, [source])
  return waits
}

interface Shown extends WaitState {
  /** A queue pair that the wait names. */
  readonly qp: number | undefined
  readonly note: string
}

const stateText = ({ state, facts, end }: SessionWait, start: number, last: number): string => {
  const since = `since ${timeText(Math.max(0, facts.since - start))} s`
  if (state === 'waits') return `${since}, for ${durationText(last - facts.since)}`
  const until = `${since}, for ${durationText((end ?? last) - facts.since)}`
  return state === 'closed' ? `${until}, until the program ended or closed the device` : `${until}; it is over`
}

/** How programs ended that did not end well, then what programs wait for. Nothing if there is nothing to say. */
export const WaitsOfSession = ({ store }: { readonly store: Store }) => {
  const { facts, session, source } = store
  const now = useWaits(source)
  const recorded = facts.waits.lasting.map((wait): Shown & Pick<SessionWait, 'state'> => ({
    ...wait.facts,
    state: wait.state,
    qp: wait.facts.objects.find(id => facts.objects.queuePairs.has(id)),
    note: stateText(wait, facts.start, session.end),
  }))
  const isSame = (a: WaitState, b: WaitState): boolean => a.pid === b.pid && a.device === b.device && a.text === b.text
  // The daemon knows better than the page what is not over, since a page may skip events.
  const open: readonly Shown[] = source.about.isLive
    ? now.map(wait => recorded.find(other => isSame(wait, other)) ?? { ...wait, qp: undefined, note: '' })
    : recorded.filter(({ state }) => state === 'waits')
  const waits: readonly Shown[] = [...open, ...recorded.filter(({ state }) => state === 'closed')]
  const ends = facts.waits.programEnds.filter(({ status }) => status !== 0)
  return (
    <>
      {ends.length > 0 && (
        <section>
          <h2>How programs ended</h2>
          <ul class="sentences">
            {ends.map(end => {
              const finding = facts.findings.entries.find(
                ({ finding: { id, program } }) =>
                  isFindingId(id) && kinds[id].tells === 'death' && program?.pid === end.pid,
              )?.finding
              return (
                <li key={end.pid}>
                  <a href={linkTo('calls', { filter: `pid == ${end.pid}` })}>
                    {end.command} {end.pid}
                  </a>
                  <span>
                    {programEndText(end)} at {timeText(Math.max(0, end.time - facts.start))} s
                    {finding && (
                      <>
                        :{' '}
                        <a href={linkTo('findings', { number: finding.number })}>
                          <Prose text={finding.text} />
                        </a>
                      </>
                    )}
                  </span>
                </li>
              )
            })}
          </ul>
        </section>
      )}
      {waits.length > 0 && (
        <section>
          <h2>What programs wait for</h2>
          <ul class="sentences">
            {waits.slice(0, MAX_ROWS).map(({ device, pid, command, text, qp, note }) => (
              <li key={`${device} ${pid} ${text}`}>
                <a href={qp === undefined ? linkTo('calls', { filter: `pid == ${pid}` }) : linkTo('ladder', { qp })}>
                  {command} {pid}
                </a>
                <span>
                  {device}: <Prose text={text} />
                  {note !== '' && <span class="quiet"> ({note})</span>}
                </span>
              </li>
            ))}
          </ul>
          {waits.length > MAX_ROWS && <p class="quiet">And {countText(waits.length - MAX_ROWS)} more.</p>}
        </section>
      )}
    </>
  )
}

/** The waits that name one of these objects; nothing without one. */
export const WaitsOf = ({ store, objects }: { readonly store: Store; readonly objects: readonly number[] }) => {
  const { facts, session } = store
  const waits = [...new Set(objects.flatMap(id => facts.waits.of(id)))].slice(-MAX_ROWS)
  return (
    <>
      {waits.map(wait => (
        <p key={wait.facts.text} class={`sentence${wait.state === 'over' ? '' : ' tone-text-nak'}`}>
          {wait.facts.command} {wait.facts.pid} {wait.state === 'waits' ? 'waits' : 'waited'}:{' '}
          <Prose text={wait.facts.text} /> <span class="quiet">({stateText(wait, facts.start, session.end)})</span>
        </p>
      ))}
    </>
  )
}
