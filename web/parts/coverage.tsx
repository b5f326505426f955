/*
 * Says what time the numbers of a view are of, if that is not the whole session.
 */
import { coverageTexts } from '../data/coverage.ts'
import type { Store } from '../data/store.ts'

export const Coverage = ({ store }: { readonly store: Store }) => {
  const texts = coverageTexts(store.facts, store.session)
  return texts.length === 0 ? null : <p class="from-note">{texts.join('. ')}.</p>
}
