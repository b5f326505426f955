/*
 * What went wrong: findings of `userdma check`, and failures with their causes.
 */

import { findings as kinds } from '../../src/spec/check/findings.ts'
import { printable } from '../../src/spec/printable.ts'
import type { FindingEvent } from '../../src/spec/session-events.ts'
import { omittedText } from '../data/coverage.ts'
import { lossesOf } from '../data/losses.ts'
import type { Kept } from '../data/memory.ts'
import type { Facts, Timed } from '../data/store.ts'
import { countText, lostText, plural, timeText } from '../format.ts'
import { Empty } from '../parts/basics.tsx'
import { Pages, pageOf } from '../parts/pages.tsx'
import { Prose } from '../parts/prose.tsx'
import { Caller, StackView } from '../parts/stack.tsx'
import { StoryView } from '../parts/story.tsx'
import { linkTo, type Route, setParam } from '../route.ts'
import type { ViewProps } from './view-props.ts'

/** Cards of a page. */
const PAGE_SIZE = 40
/** Sentences of a page. */
const SENTENCES = 160

/** Another page has other findings than the one that the address names. */
const forget = (): void => setParam('number', undefined)

/** The queue pair that a finding names, as an object. */
const queuePairOf = (facts: Facts, finding: FindingEvent['finding']): number | undefined =>
  finding.objects.find(({ id }) => id !== undefined && facts.objects.queuePairs.has(id))?.id

const Card = ({
  event,
  facts,
  start,
  isOpen,
}: {
  readonly event: Timed<FindingEvent>
  readonly facts: Facts
  readonly start: number
  readonly isOpen: boolean
}) => {
  const { finding } = event
  const { id, severity, text, details, program, moments, objects } = finding
  const qp = queuePairOf(facts, finding)
  // A session may have kinds that this page does not know, and those of a capture have advice of their own.
  const kind = (kinds as Readonly<Record<string, { readonly advice?: string; readonly libraryAdvice?: string }>>)[id]
  const advice = finding.advice ?? (program === undefined ? (kind?.libraryAdvice ?? kind?.advice) : kind?.advice)
  return (
    <details class={`finding ${severity}`} open={isOpen}>
      <summary>
        <span class={`severity ${severity}`}>{severity}</span>
        <span class="finding-text">
          <Prose text={text} />
        </span>
        <span class="mono quiet">{timeText(event.time - start)} s</span>
      </summary>
      <p class="quiet">
        {id}
        {program ? ` · ${printable(program.command)} ${program.pid}` : ''} · {printable(finding.device)}
        {qp !== undefined && (
          <>
            {' · '}
            <a href={linkTo('ladder', { qp, from: Math.max(0, Math.floor(event.time - 50_000)) })}>
              packets at this time
            </a>
            {' · '}
            <a href={linkTo('objects', { id: qp })}>queue pair</a>
          </>
        )}
      </p>
      {details.map(line => (
        <p key={line}>
          <Prose text={line} />
        </p>
      ))}
      <StoryView story={finding.story ?? []} start={start} />
      {moments.map(({ action, time, stack }) => (
        <section key={`${action} ${time}`}>
          <h4>
            {printable(action)} at {timeText(time - start)} s
          </h4>
          <StackView stack={stack} />
        </section>
      ))}
      {objects.map(({ name, history }) => (
        <section key={name}>
          <h4>{printable(name)}</h4>
          <ul class="history">
            {history.slice(0, 12).map(({ action, time, stack }) => (
              <li key={`${action} ${time}`}>
                <span class="mono">{timeText(time - start)} s</span> {printable(action)}{' '}
                <span class="quiet">
                  <Caller stack={stack} />
                </span>
              </li>
            ))}
          </ul>
        </section>
      ))}
      {advice && (
        <p class="advice">
          <Prose text={advice} />
        </p>
      )}
    </details>
  )
}

const Omitted = ({ of: list }: { readonly of: Kept<unknown> }) =>
  list.omitted === 0 ? null : (
    <p class="from-note">
      These are {countText(list.entries.length)} of {countText(list.total)}
      {omittedText(list)}.
    </p>
  )

export const Findings = ({ store, route }: ViewProps & { readonly route: Route }) => {
  const { facts } = store
  const { start } = store.facts
  const { entries: findings } = facts.findings
  const { entries: failures } = facts.failures
  const losses = lossesOf(facts)
  const wanted = Number(route.params.get('number'))
  if (findings.length + failures.length === 0)
    return (
      <Empty title={store.readState === 'reading' ? 'Reading …' : 'No problems'}>
        {losses.lost > 0 && (
          <p>
            <a href={linkTo('charts')}>{lostText(losses)}</a>: no program noticed a failure.
          </p>
        )}
        {store.session.header.isCapture === true ? (
          <p>Nothing that failed or was slow is visible in the packets of this capture.</p>
        ) : (
          <p>
            Failed requests appear here with their causes. <code>userdma check --record FILE -- PROGRAM</code> also
            records the mistakes that it finds, with stacks.
          </p>
        )}
      </Empty>
    )
  // A link to a finding opens the page that has it.
  const at = wanted ? findings.findIndex(({ finding }) => finding.number === wanted) : -1
  const page = at >= 0 ? Math.floor(at / PAGE_SIZE) : pageOf(route.params.get('page'), PAGE_SIZE, findings.length)
  const failurePage = pageOf(route.params.get('failures'), SENTENCES, failures.length)
  return (
    <div class="page">
      {wanted > 0 && at < 0 && store.readState !== 'reading' && (
        <p role="alert">There is no finding {wanted} in this session.</p>
      )}
      {findings.length > 0 && (
        <section>
          <h2>{plural(findings.length, 'finding')}</h2>
          <Omitted of={facts.findings} />
          {findings.slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE).map((event, i) => (
            <Card
              key={event.finding.number}
              event={event}
              facts={facts}
              start={start}
              isOpen={event.finding.number === wanted || (i === 0 && page === 0 && !wanted)}
            />
          ))}
          <Pages param="page" page={page} size={PAGE_SIZE} count={findings.length} label="findings" onGo={forget} />
        </section>
      )}
      {failures.length > 0 && (
        <section>
          <h2>{plural(failures.length, 'failure')}</h2>
          <Omitted of={facts.failures} />
          <ul class="sentences">
            {failures.slice(failurePage * SENTENCES, (failurePage + 1) * SENTENCES).map(({ failure, time, object }) => (
              <li key={`${time} ${failure.failure.text}`}>
                <a class="mono" href={linkTo('ladder', { qp: object, from: Math.max(0, Math.floor(time - 100_000)) })}>
                  {timeText(time - start)} s
                </a>
                <span>
                  <Prose text={failure.failure.text} />
                </span>
              </li>
            ))}
          </ul>
          <Pages
            param="failures"
            page={failurePage}
            size={SENTENCES}
            count={failures.length}
            label="failures"
            onGo={forget}
          />
        </section>
      )}
    </div>
  )
}
