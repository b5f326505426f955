/*
 * Arms CQs of a context in a daemon without a call, by words of the context's memory file
 * (docs/decisions/events-without-calls.md).
 */
import { loadWord } from '../../../host/memory/fence.ts'
import type { Mapping } from '../../../host/memory/mapping.ts'
import { ArmWord, ArmWords } from '../../../spec/context-logs.ts'
import { ParkedPage } from '../../../spec/session.ts'
import { ringPool } from './file-rings.ts'

interface ArmedByWord {
  /** Arms the CQ with this handle. False: only a call can. The caller then looks at the CQ, by Atomics.load. */
  arm(handle: number, solicitedOnly: boolean): boolean
  /** From now on `arm` returns false. */
  end(): void
}

/** `file`: the context's memory file. `parked`: the parked page. */
export const armedByWord = (file: number, parked: Int32Array): ArmedByWord => {
  let mapping: Mapping | undefined
  let hasEnded = false
  return {
    arm(handle, solicitedOnly) {
      if (hasEnded || handle >= ArmWords.entries || loadWord(parked, ParkedPage.CALLS) !== 0) return false
      mapping ??= ringPool().map(file, ArmWords.offset, ArmWords.entries * 4)
      const words = mapping.i32
      for (let seen = Atomics.load(words, handle); ; ) {
        if (seen < ArmWord.IDLE || seen > ArmWord.NEXT) return false
        const next = solicitedOnly && seen !== ArmWord.NEXT ? ArmWord.SOLICITED : ArmWord.NEXT
        const found = Atomics.compareExchange(words, handle, seen, next)
        if (found === seen) return true
        seen = found
      }
    },
    end() {
      hasEnded = true
      if (mapping !== undefined) ringPool().release(mapping)
      mapping = undefined
    },
  }
}
