/*
 * Captures whose causes are known (test/fixtures/captures): what `explain` says of each, and that it says no more.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { reportLines, reportObjects } from '../../../src/tools/captures/report.ts'
import { analyse, knownCapture, problemsIn } from './build.ts'

/** By capture: each cause with what its evidence has. */
const expected: Readonly<Record<string, readonly (readonly [cause: string, evidence: RegExp])[]>> = {
  'healthy-udp-gso': [],
  'one-direction-requests': [
    ['loss', /as the answers are not in the capture; 14 of them were missing here before/],
    [
      'one-direction',
      /^the capture has no packet from 10\.77\.0\.2 to 10\.77\.0\.1; 60 WRITE sent; .* was acknowledged/,
    ],
  ],
  'one-direction-nak-remote-access': [
    ['remote-access', /^the responder refused PSN 0x124456; the request is not in the capture$/],
    ['one-direction', /^the capture has no packet from 10\.77\.0\.1 to 10\.77\.0\.2;/],
  ],
  'rej-alone-reason4': [
    ['cm-rejected-alone', /^10\.77\.0\.1 sent 10\.77\.0\.2 a REJ .*: reason 4, timeout: it waited/],
  ],
  'req-6-times-no-rep': [
    ['cm-no-answer', /: 10\.77\.0\.1 sent the REQ 6 times in 24\.2 s, and gave up .*; 10\.77\.0\.2 never answered$/],
  ],
  'duplicated-by-net': [['doubled', /^16 of 496 packets, 5\.00 to 133 µs after the first$/]],
  'read-implied-nak': [
    ['implied-nak', /not after a timeout; 8 responses are missing here, the first before frame 90$/],
  ],
  'late-acks-spurious-retries': [
    [
      'late-acknowledgements',
      /after timeouts of 12\.8 to 24\.4 ms; an answer took 27\.2 to 44\.3 ms; 18 of the bursts/,
    ],
  ],
  'psn-5-behind': [['invalid-request', /PSN 0x12445b; it is the MIDDLE packet of a message, and its PSN is 5 above/]],
  'wrong-rkey': [['remote-access', /^the responder refused PSN 0x124456$/]],
}

for (const [name, problems] of Object.entries(expected))
  test(`${name}: its causes, and no others`, () => {
    const found = problemsIn(knownCapture(name))
    assert.deepEqual(
      found.map(({ cause }) => cause),
      problems.map(([cause]) => cause),
    )
    for (const [i, [, evidence]] of problems.entries()) assert.match(found[i]!.evidence, evidence)
  })

const linesOf = (name: string): string =>
  reportLines(analyse(knownCapture(name)), { name, top: 5 })
    .map(line => (typeof line === 'string' ? line : line.text))
    .join('\n')

test('messages in frames with several packets are counted, and the frames are told', () => {
  const text = linesOf('healthy-udp-gso')
  assert.match(text, /: 12 WRITE of 6144 bytes, packets of 1024, /)
  assert.match(text, /10 frames have several packets, 50 in all/)
})

test('what was refused is printed, and an object for programs', () => {
  assert.match(linesOf('wrong-rkey'), /refused: RDMA_WRITE of 4096 bytes at 0x55f640372810 with rkey 0x96662ce\n/)
  const problem = [...reportObjects(analyse(knownCapture('wrong-rkey')), '')].find(({ kind }) => kind === 'problem')
  assert.deepEqual(problem?.refused, {
    opcode: 'RDMA_WRITE',
    rkey: 0x96662ce,
    address: '0x55f640372810',
    length: 4096,
  })
})

test('the host whose packets are absent is a field for programs', () => {
  for (const [name, absent] of [
    ['one-direction-requests', '10.77.0.2'],
    ['one-direction-nak-remote-access', '10.77.0.1'],
  ] as const) {
    const objects = [...reportObjects(analyse(knownCapture(name)), '')]
    assert.equal(objects.find(({ cause }) => cause === 'one-direction')?.absent, absent)
  }
})

test('an invalid request that begins in the middle of a message has PSN and path MTU in why and advice', () => {
  const text = linesOf('psn-5-behind')
  assert.match(text, /why: .*path MTU.* expects a later PSN/)
  assert.match(text, /what to do: .*path_mtu.*sq_psn.*rq_psn/)
})
