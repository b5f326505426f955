/*
 * The kinds of findings that say what programs wait for (waits.ts), of those in findings.ts.
 */
import type { FindingRow } from './finding-row.ts'

export const waitFindings = {
  deadlock: {
    severity: 'warning',
    needs: ['check'],
    title: 'threads wait for each other, or for what nobody ends',
    why: 'Each thread of a cycle waits for the next one: for a lock that it holds, for its end, or for a message that it does not send. A chain ends at a thread whose wait nothing ends, such as ibv_get_async_event while no event is on its way. Threads of all processes of the daemon are looked at, and their connections; a thread of which nothing is known, a timeout, a listener, a descriptor of another program and outstanding work count as what may end a wait, and where a thread of the cycle polls, everything else stands still. Programs that stand still for different reasons have a finding each. "who waits for whom:" has all threads that wait, those of the cycle first. It is reported when a program is ended by a signal, on Ctrl-C, or with `--hang`; `userdma stat --waits` shows it without.',
  },
  'endless-rnr': {
    severity: 'warning',
    needs: ['check'],
    title: 'a message waits without limit for a receive of the peer',
    why: 'With rnr_retry 7 the sender repeats a message until the peer has posted a receive (IBA 9.7.5.2.8): if the peer posts none, the request never completes, and no failure tells why. The finding has the numbers of receives and messages. It is reported when the program is ended by a signal, on Ctrl-C, or with `--hang`; of a program of the library with `open({ check: true })`, after a second.',
    advice:
      'post a receive for each message, before the message is sent; to fail instead of waiting, set rnr_retry below 7',
  },
  'swap-repeated': {
    severity: 'warning',
    needs: ['check'],
    title: 'a compare-and-swap is repeated, and the word has another value than it expects',
    why: 'A compare-and-swap changes the word only if it has the expected value, and returns the value that it found. After a thousand in a row, all alike, the finding says what was expected and found, and whose request wrote the word: that of a process that has ended with a lock leaves it taken for ever, and a word that was written in the byte order of the network is another number, because the device compares numbers of its host. It is a note if the writer goes on, because a lock may be held for long; words that others give back meanwhile are no finding. It is reported when the program is ended by a signal, on Ctrl-C, or with `--hang`.',
  },
  'both-receive': {
    severity: 'note',
    needs: ['check'],
    title: 'both ends of a connection wait for a message',
    why: 'Each end has receives posted, and neither has a send outstanding: if both programs wait for a message, none comes. It is reported when the program is ended by a signal, on Ctrl-C, or with `--hang`.',
    advice:
      'look for a send that one end has left out, or that it sends only after a message of the other, or for a completion that was polled before and not counted',
  },
  'connection-waits': {
    severity: 'warning',
    needs: ['check'],
    title: 'a connection of rdma_cm waits for a call of a program',
    why: 'A request waits until its program has called rdma_accept or rdma_reject, and the peer waits with it; an event is delivered once and waits until rdma_get_cm_event reads it, also REJECTED and UNREACHABLE. A thread may also wait for an event that cannot come before the next call on the identifier, for example for ESTABLISHED after REJECTED, or for DISCONNECTED after DEVICE_REMOVAL, which is the last. It is reported when a program is ended by a signal, on Ctrl-C, or with `--hang`.',
    advice: 'read the events of each channel, and answer each CONNECT_REQUEST by rdma_accept or rdma_reject',
  },
  'idle-queues': {
    severity: 'note',
    needs: ['check'],
    title: 'a program waits, and nothing that is outstanding can complete',
    why: 'A completion comes only of a request that is outstanding: a wait for another one does not end, for example for a message that was lost, a completion that another thread has polled, or the flush of a queue pair that was destroyed. The finding names the queue pair whose state lets no request complete, the asynchronous event that was not read, the work that was lost before and the threads that poll the CQ; else it counts what the queues of the program have (`userdma help reference/waits-by-device`). It is reported when the program is ended by a signal, on Ctrl-C, or with `--hang`, unless a reason for the wait is known or an error was found.',
  },
  'peer-gone': {
    severity: 'warning',
    needs: ['check'],
    title: 'a program waits for a peer that is gone',
    why: 'No message comes from a queue pair that was destroyed or reset, that is in ERR, or whose process has ended, and nothing tells the program: a connection has no heartbeat (IBA 9.7). The finding says who has destroyed or reset the queue pair. With rdma_cm the end of the peer is the event DISCONNECTED; the finding says whether the program has read it. It is reported when the program is ended by a signal, on Ctrl-C, or with `--hang`, and `userdma stat --qps` shows it; as a note if the program has other queue pairs with requests, for which it may wait, or if it has no request outstanding.',
    advice:
      'keep a socket or rdma_cm between the ends and end the connection when it closes, or send a message from time to time: it fails when the peer is gone',
    libraryAdvice:
      'end the connection when the socket between the ends closes, or send a message from time to time: it fails when the peer is gone',
  },
} as const satisfies Record<string, FindingRow>
