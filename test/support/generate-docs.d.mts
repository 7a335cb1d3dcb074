/* Types of generate-docs.mjs, which is plain JavaScript because npm runs it without a build of the tests. */

export interface DocsSource {
  readonly calls: readonly object[];
  readonly mechanisms: readonly object[];
  readonly attributes: readonly { readonly type: number; readonly kind: string }[];
  readonly errors: Readonly<Record<string, { readonly exitCode: number; readonly meaning: string }>>;
}

export const PAGES: readonly string[];
export function renderPage(text: string, source: DocsSource): string;
