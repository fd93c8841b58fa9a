"""Menus and navigation bars of web pages.

No list of words: a menu is known by its form.  Its lines are short, end no sentence and come in runs, while a heading
stands alone before its text; bars hold several short words between separators.  Words that only navigation uses
(上一页, 返回首页 …) count wherever they stand alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pangu_alpha.config_checks import require
from pangu_alpha.data.document import with_text
from pangu_alpha.data.lines import Lines
from pangu_alpha.data.rule import Outcome, changed, pieces

_SENTENCE = r"[。！？；，、：…!?;,:]|[.]\s|[”》」』）)]$"
_CHINESE = r"\p{Han}"
_LEADS_TO_LIST = r"[:：]\s*$"
_PATH = r"[A-Za-z0-9.~]/|/[A-Za-z0-9.~]|^[$#] "
_PLAIN_WORDS = r"^[•\s\-*]*[A-Za-z][A-Za-z ]{0,24}$"
_BAR = r"^[^。！？；]{1,12}(\s*[|｜›»>/·•・‹«]\s*[^。！？；|｜›»>/·•・]{1,12}){2,}$"
_TABLE_OF_CONTENTS = r"^[•\-*]?\s*(\d+|[A-Z])\.\d+(\.\d+)*\.?\s*\S|^[•\-*]?\s*第\s*[\d一二三四五六七八九十百]+\s*[章节回部卷]|^[•\-*]?\s*附录"
_WORDS = (
    "首页|主页|返回首页|返回|返回顶部|回到顶部|回顶部|顶部|上一页|下一页|上页|下页|前一页|后一页|上一篇|下一篇|上一章|下一章|上一级|起始页|起始頁|末页|尾页|"
    "登录|登陆|注册|免费注册|退出|会员中心|个人中心|我的订单|购物车|收藏|收藏本站|加入收藏|设为首页|网站地图|网站导航|导航|快速导航|当前位置|您的位置|"
    "关于我们|联系我们|联系方式|加入我们|诚聘英才|招聘信息|广告服务|法律声明|免责声明|隐私政策|隐私声明|使用条款|服务条款|帮助中心|意见反馈|客服中心|友情链接|"
    "打印|打印本页|关闭窗口|关闭|分享|分享到|分享到微信|转发|评论|发表评论|查看评论|我要评论|点赞|举报|投诉|更多|更多>>|查看更多|阅读全文|展开全文|相关阅读|相关文章|"
    "相关新闻|相关推荐|相关主题|热门文章|热门标签|热门推荐|推荐阅读|猜你喜欢|最新文章|最新评论|排行榜|点击排行|标签|搜索|站内搜索|高级搜索|全部分类|所有分类|目录|"
    "索引|字号|大 中 小|大|中|小|繁体|简体|手机版|电脑版|客户端下载|扫一扫|English|Home|Login|Search|Menu|Next|Prev|Previous|Up|Top|Contents|"
    "前一頁|下一頁|上一頁|上一層|回首頁|首頁|目錄|登入|註冊|搜尋|关注|订阅|回复|引用|楼主|只看楼主|倒序|沙发|发帖|版块|论坛首页"
)
_ONLY_WORDS = rf"^[\s•\-*\[\]【】<>»«›‹|｜/·:：←→↑↓🔎︎]*(({_WORDS})[\s•\-*\[\]【】<>»«›‹|｜/·:：←→↑↓🔎︎]*)+$"
_LINKED_WORDS = r"^[•\s\-*]*(上一[页章篇级頁層]|下一[页章篇頁]|前一[页頁]|后一[页頁]|返回|起始[页頁]|回首頁)[:：]?[^。！？；]{0,60}$"
_COPYRIGHT = r"版权所有|(?i)copyright|©|ICP\s*[备证]|京公网安备|公网安备\s*\d|All Rights Reserved|备案号"
_CRUMBS = r"^(当前位置|您的位置|您现在的位置|你的位置|所在位置|首页)\s*[:：>›»]"
_MACHINE = r"^(Help content debug info|This page is|Title is)\b"
_LINE_OF_PAGE_DATA = r"^[•\s]*(浏览次数|阅读次数|点击数|点击量|浏览量|访问量|人气|评论数|责任编辑|责编|编辑|字体大小|字号|来源|发布时间|发表时间|更新时间)\s*[:：]"


@dataclass(frozen=True)
class Navigation:
    """Remove menus, navigation bars, tables of contents, copyright lines; measures the share of lines that went.

    Source: paper §3.1 ("detect and remove navigation bars"), which publishes no method; this one is ours, measured on
    labelled pages (`pangu_alpha/data/page_lines.py`).
    """

    name: ClassVar[str] = "navigation"
    longest: int = 20
    """Characters of a menu's line at most."""
    run: int = 4
    """So many such lines one after the other are a menu."""

    def __post_init__(self) -> None:
        require(self.longest >= 2, "longest", self.longest, "it must be 2 or more")
        require(self.run >= 2, "run", self.run, "it must be 2 or more")

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Changes texts; what is nothing but menus is dropped."""
        lines = Lines.of(batch["text"])
        menu = self.menu_lines(lines)
        shares = lines.count(menu) / np.maximum(lines.count(lines.lengths > 0), 1)
        values = pa.array(shares, pa.float64())
        if not menu.any():
            return changed(batch, batch, values)
        removed = pieces(self.name, batch, pa.array(lines.parents[menu]), lines.texts.filter(pa.array(menu)))
        return changed(batch, with_text(batch, lines.without(menu, batch["text"])), values, removed)

    def menu_lines(self, lines: Lines) -> npt.NDArray[np.bool_]:
        """Which lines are menus [lines]."""
        lengths = lines.lengths
        filled = lengths > 0
        numbered = lines.matches(_TABLE_OF_CONTENTS)
        wordy = lines.matches(_CHINESE) | lines.matches(_PLAIN_WORDS)  # code and numbers are no menu's
        short = filled & (lengths <= self.longest) & ~lines.matches(_SENTENCE) & wordy
        short |= numbered & (lengths <= 3 * self.longest) & ~lines.matches(r"[。！？；]")
        certain = filled & (
            lines.matches(_ONLY_WORDS)
            | lines.matches(_LINKED_WORDS)
            | (lines.matches(_BAR) & lines.matches(_CHINESE) & ~lines.matches(_PATH))
            | lines.matches(_CRUMBS)
            | lines.matches(_MACHINE)
            | ((lengths <= 120) & lines.matches(_COPYRIGHT))
            | ((lengths <= 80) & lines.matches(_LINE_OF_PAGE_DATA))
        )
        places = np.flatnonzero(filled)
        if len(places) == 0:
            return certain
        result = certain.copy()
        result[places] |= self._at_ends(
            lines.matches(_LINKED_WORDS)[places],
            (lengths <= 3 * self.longest)[places] & ~lines.matches(r"[。！？；]")[places],
            lines.parents[places],
        )
        result[places] |= self._in_runs(
            (short | certain)[places],
            certain[places],
            lines.matches(_CHINESE)[places],
            lines.matches(_LEADS_TO_LIST)[places],
            numbered[places],
            lines.parents[places],
        )
        return result

    def _at_ends(
        self, turns: npt.NDArray[np.bool_], slim: npt.NDArray[np.bool_], parents: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Slim lines among a page's last ones, behind one that turns pages: the titles of those pages."""
        count = np.bincount(parents)
        left = np.cumsum(count)[parents] - np.arange(len(parents))  # lines up to the page's last
        tail = left <= 2 * self.run
        seen = np.cumsum(turns & tail)
        before = np.concatenate([[0], seen])[np.searchsorted(parents, parents)]
        return tail & slim & (seen > before)

    def _in_runs(
        self,
        short: npt.NDArray[np.bool_],
        certain: npt.NDArray[np.bool_],
        chinese: npt.NDArray[np.bool_],
        leads_to_list: npt.NDArray[np.bool_],
        numbered: npt.NDArray[np.bool_],
        parents: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.bool_]:
        """Which of the lines that are not blank stand in menus, by the run of short lines that they are in."""
        begins = np.ones(len(short), bool)
        begins[1:] = (short[1:] != short[:-1]) | (parents[1:] != parents[:-1])
        number = np.cumsum(begins) - 1
        first = np.flatnonzero(begins)
        last = np.append(first[1:], len(short)) - 1
        sizes = last - first + 1
        with_chinese = np.bincount(number, weights=chinese) * 2 >= sizes
        # What a line with a colon introduces is a list of its text.
        introduced = np.zeros(len(first), bool)
        inside = first > 0
        introduced[inside] = leads_to_list[first[inside] - 1] & (parents[first[inside]] == parents[first[inside] - 1])
        is_menu = (sizes >= self.run) & with_chinese & ~introduced
        # A page opens or ends with short lines around some that only navigation has.
        opens = np.concatenate([[True], parents[1:] != parents[:-1]])[first]
        ends = np.concatenate([parents[1:] != parents[:-1], [True]])[last]
        is_menu |= (opens | ends) & (sizes <= 2 * self.run) & (np.bincount(number, weights=certain) > 0)
        marked = short & is_menu[number]
        # A run may end with the heading of the text behind it, which stays.
        before_text = np.concatenate([begins[1:] & (parents[1:] == parents[:-1]), [False]])
        # The last entry of a table of contents is no heading.
        of_contents = numbered & np.concatenate([[False], numbered[:-1] & (parents[1:] == parents[:-1])])
        return marked & ~(before_text & ~certain & ~of_contents)
