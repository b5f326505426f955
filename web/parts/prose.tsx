/*
 * Sentences of the program as the page shows them: what stands between backticks is code. Texts of others, such as
 * lines of source, stay as they are.
 */
import { proseParts } from '../format.ts'

export const Prose = ({ text }: { readonly text: string }) => (
  <>{proseParts(text).map((part, i) => (i % 2 === 0 ? part : <code key={i}>{part}</code>))}</>
)
